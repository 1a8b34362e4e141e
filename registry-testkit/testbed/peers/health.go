package main

import (
	"context"
	"fmt"
	"net"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/health"
	"google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/peer"
)

// Serves gRPC's health service on an address, registers it, and deregisters it when stdin ends.
func serve(framework framework, service, address string) error {
	listener, err := net.Listen("tcp", address)
	if err != nil {
		return err
	}
	server := grpc.NewServer()
	grpc_health_v1.RegisterHealthServer(server, health.NewServer())
	served := make(chan error, 1)
	go func() { served <- server.Serve(listener) }()
	deregister, err := framework.register(service, listener.Addr().String())
	if err != nil {
		return err
	}
	fmt.Println("registered", listener.Addr())
	waitForStdin()
	if err = deregister(); err != nil {
		return err
	}
	fmt.Println("deregistered", listener.Addr())
	server.GracefulStop()
	return <-served
}

// Calls the health service of a target, and returns who answered.
func healthCalls(target string, calls int, more ...grpc.DialOption) ([]string, error) {
	connection, err := dial(target, more...)
	if err != nil {
		return nil, err
	}
	defer connection.Close()
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	client := grpc_health_v1.NewHealthClient(connection)
	var answered []string
	for range calls {
		var who peer.Peer
		_, err := client.Check(ctx, &grpc_health_v1.HealthCheckRequest{}, grpc.Peer(&who), grpc.WaitForReady(true))
		if err != nil {
			return answered, err
		}
		answered = append(answered, who.Addr.String())
	}
	return answered, nil
}
