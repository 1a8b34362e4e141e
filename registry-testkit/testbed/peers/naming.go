package main

import (
	"context"
	"fmt"
	"net/url"
	"sort"

	clientv3 "go.etcd.io/etcd/client/v3"
	"go.etcd.io/etcd/client/v3/naming/endpoints"
	naming "go.etcd.io/etcd/client/v3/naming/resolver"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/resolver"
	"google.golang.org/grpc/serviceconfig"
)

// gRPC-Go's naming in etcd.
type grpcNaming struct {
	client *clientv3.Client
}

func openNaming(endpoint string) (framework, error) {
	client, err := connect(endpoint)
	return grpcNaming{client}, err
}

// A connection that only tells what the resolver resolves.
type told struct {
	seen func([]string)
	fail chan error
}

func (t told) UpdateState(state resolver.State) error {
	var addresses []string
	for _, address := range state.Addresses {
		addresses = append(addresses, address.Addr)
	}
	for _, endpoint := range state.Endpoints {
		for _, address := range endpoint.Addresses {
			addresses = append(addresses, address.Addr)
		}
	}
	sort.Strings(addresses)
	t.seen(addresses)
	return nil
}

func (t told) ReportError(err error)           { t.fail <- err }
func (t told) NewAddress(_ []resolver.Address) {}
func (t told) ParseServiceConfig(string) *serviceconfig.ParseResult {
	return &serviceconfig.ParseResult{Err: fmt.Errorf("no service config here")}
}

func (g grpcNaming) follow(service string, seen func([]string)) error {
	builder, err := naming.NewBuilder(g.client)
	if err != nil {
		return err
	}
	target, err := url.Parse(g.target(service))
	if err != nil {
		return err
	}
	connection := told{seen, make(chan error, 1)}
	if _, err = builder.Build(resolver.Target{URL: *target}, connection, resolver.BuildOptions{}); err != nil {
		return err
	}
	return <-connection.fail
}

func (g grpcNaming) target(service string) string { return "etcd:///services/" + service }

func (g grpcNaming) register(service, address string) (func() error, error) {
	target := "services/" + service
	manager, err := endpoints.NewManager(g.client, target)
	if err != nil {
		return nil, err
	}
	lease, err := g.client.Grant(context.Background(), 5)
	if err != nil {
		return nil, err
	}
	alive, err := g.client.KeepAlive(context.Background(), lease.ID)
	if err != nil {
		return nil, err
	}
	go func() {
		for range alive {
		}
	}()
	key := target + "/" + address
	// As people use it: what is not in gRPC's address goes into the metadata.
	endpoint := endpoints.Endpoint{Addr: address, Metadata: map[string]string{"by": "grpc-go"}}
	if err = manager.AddEndpoint(context.Background(), key, endpoint, clientv3.WithLease(lease.ID)); err != nil {
		return nil, err
	}
	return func() error { return manager.DeleteEndpoint(context.Background(), key) }, nil
}

func (g grpcNaming) call(service string, calls int, answered func(string)) error {
	builder, err := naming.NewBuilder(g.client)
	if err != nil {
		return err
	}
	// Of the target it would make the authority services%2Fbook, which HTTP/2 servers in Rust refuse.
	return dialAndCall(g.target(service), calls, answered, grpc.WithResolvers(builder), grpc.WithAuthority(service))
}

func dial(target string, more ...grpc.DialOption) (*grpc.ClientConn, error) {
	options := []grpc.DialOption{
		grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithDefaultServiceConfig(`{"loadBalancingConfig":[{"round_robin":{}}]}`),
	}
	return grpc.NewClient(target, append(options, more...)...)
}
