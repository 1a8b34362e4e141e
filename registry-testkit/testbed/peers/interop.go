package main

import (
	"fmt"
	"io"
	"math"
	"net"
	"os"

	"google.golang.org/grpc"
	// It decompresses what names it.
	_ "google.golang.org/grpc/encoding/gzip"
	"google.golang.org/grpc/interop"
	testgrpc "google.golang.org/grpc/interop/grpc_testing"
)

// serveInterop runs the server of gRPC's interop tests until stdin ends, and then gracefully to its end. It allows so many
// calls at the same time on each connection, or as many as there are if that is 0.
func serveInterop(address string, streams int) error {
	listener, err := net.Listen("tcp", address)
	if err != nil {
		return err
	}
	most := uint32(math.MaxUint32)
	if streams > 0 {
		most = uint32(streams)
	}
	server := grpc.NewServer(grpc.MaxConcurrentStreams(most))
	testgrpc.RegisterTestServiceServer(server, interop.NewTestServer())
	go func() {
		_, _ = io.Copy(io.Discard, os.Stdin)
		server.GracefulStop()
	}()
	fmt.Println("serving", listener.Addr())
	return server.Serve(listener)
}
