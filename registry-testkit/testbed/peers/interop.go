package main

import (
	"fmt"
	"io"
	"net"
	"os"

	"google.golang.org/grpc"
	// Servers decompress what names it.
	_ "google.golang.org/grpc/encoding/gzip"
	"google.golang.org/grpc/interop"
	"google.golang.org/grpc/interop/grpc_testing"
)

// gRPC-Go's own server of the interoperability tests, until stdin ends; it says where it serves.
func serveInterop(address string) error {
	listener, err := net.Listen("tcp", address)
	if err != nil {
		return err
	}
	server := grpc.NewServer()
	grpc_testing.RegisterTestServiceServer(server, interop.NewTestServer())
	failed := make(chan error, 1)
	go func() { failed <- server.Serve(listener) }()
	fmt.Println("serving", listener.Addr())
	ended := make(chan struct{})
	go func() {
		_, _ = io.Copy(io.Discard, os.Stdin)
		close(ended)
	}()
	select {
	case err := <-failed:
		return err
	case <-ended:
		server.GracefulStop()
		return nil
	}
}
