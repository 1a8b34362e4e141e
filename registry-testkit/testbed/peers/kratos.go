package main

import (
	"context"
	"fmt"
	"net/url"
	"sort"
	"time"

	"github.com/go-kratos/kratos/contrib/registry/consul/v2"
	"github.com/go-kratos/kratos/v2"
	"github.com/go-kratos/kratos/v2/registry"
	transport "github.com/go-kratos/kratos/v2/transport/grpc"
)

// Kratos' applications and channels over its registry in Consul.
type kratosConsul struct {
	registry *consul.Registry
}

func openKratos(endpoint string) (framework, error) {
	client, err := connectConsul(endpoint)
	if err != nil {
		return nil, err
	}
	return kratosConsul{consul.New(client, consul.WithHealthCheckInterval(1))}, nil
}

func (k kratosConsul) follow(service string, seen func([]string)) error {
	watcher, err := k.registry.Watch(context.Background(), service)
	if err != nil {
		return err
	}
	for {
		instances, err := watcher.Next()
		if err != nil {
			return err
		}
		addresses, err := grpcAddresses(instances)
		if err != nil {
			return err
		}
		seen(addresses)
	}
}

func grpcAddresses(instances []*registry.ServiceInstance) ([]string, error) {
	var addresses []string
	for _, instance := range instances {
		for _, endpoint := range instance.Endpoints {
			parsed, err := url.Parse(endpoint)
			if err != nil {
				return nil, err
			}
			if parsed.Scheme == "grpc" {
				addresses = append(addresses, parsed.Host)
			}
		}
	}
	sort.Strings(addresses)
	return addresses, nil
}

func (k kratosConsul) register(service, address string) (func() error, error) {
	started := make(chan struct{})
	app := kratos.New(
		kratos.Name(service),
		kratos.Version("1.2.0"),
		kratos.Metadata(map[string]string{"by": "kratos"}),
		kratos.Endpoint(&url.URL{Scheme: "grpc", Host: address}),
		kratos.Registrar(k.registry),
		kratos.AfterStart(func(context.Context) error {
			close(started)
			return nil
		}),
	)
	ended := make(chan error, 1)
	go func() { ended <- app.Run() }()
	select {
	case <-started:
	case err := <-ended:
		return nil, fmt.Errorf("the application ended: %v", err)
	}
	return func() error {
		if err := app.Stop(); err != nil {
			return err
		}
		return <-ended
	}, nil
}

func (k kratosConsul) call(service string, calls int, answered func(string)) error {
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	connection, err := transport.DialInsecure(ctx,
		transport.WithEndpoint("discovery:///"+service),
		transport.WithDiscovery(k.registry),
		transport.WithTimeout(5*time.Second),
		transport.WithPrintDiscoveryDebugLog(false),
	)
	if err != nil {
		return err
	}
	defer connection.Close()
	return bookCalls(connection, calls, answered)
}
