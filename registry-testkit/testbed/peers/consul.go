package main

import (
	"fmt"
	"net"
	"strconv"
	"time"

	kit "github.com/go-kit/kit/sd/consul"
	"github.com/go-kit/log"
	"github.com/hashicorp/consul/api"
)

// Go kit's sd/consul, used as its examples do.
type goKitConsul struct {
	client kit.Client
}

func connectConsul(endpoint string) (*api.Client, error) {
	config := api.DefaultConfig()
	config.Address = endpoint
	return api.NewClient(config)
}

func openGoKitConsul(endpoint string) (framework, error) {
	client, err := connectConsul(endpoint)
	if err != nil {
		return nil, err
	}
	return goKitConsul{kit.NewClient(client)}, nil
}

func (g goKitConsul) follow(service string, seen func([]string)) error {
	instancer := kit.NewInstancer(g.client, log.NewNopLogger(), service, nil, true)
	defer instancer.Stop()
	return followEvents(instancer, seen)
}

func (g goKitConsul) register(service, address string) (func() error, error) {
	host, text, err := net.SplitHostPort(address)
	if err != nil {
		return nil, err
	}
	port, err := strconv.Atoi(text)
	if err != nil {
		return nil, err
	}
	registration := &api.AgentServiceRegistration{
		ID:      service + "-" + address,
		Name:    service,
		Address: host,
		Port:    port,
		Tags:    []string{"go-kit"},
		Check:   &api.AgentServiceCheck{TCP: address, Interval: "1s", Timeout: "1s"},
	}
	// The registrar tells its log alone what went wrong.
	var failed error
	logger := log.LoggerFunc(func(pairs ...any) error {
		for n := 0; n+1 < len(pairs); n += 2 {
			if err, is := pairs[n+1].(error); is {
				failed = err
			}
		}
		return nil
	})
	registrar := kit.NewRegistrar(g.client, registration, logger)
	registrar.Register()
	return func() error {
		registrar.Deregister()
		return failed
	}, failed
}

func (g goKitConsul) call(service string, calls int, answered func(string)) error {
	entries, _, err := g.client.Service(service, "", true, nil)
	if err != nil {
		return err
	}
	var addresses []string
	for _, entry := range entries {
		address := net.JoinHostPort(entry.Service.Address, strconv.Itoa(entry.Service.Port))
		addresses = append(addresses, address)
	}
	return callEach(service, addresses, calls, answered)
}

// Consul's own client, asked again and again.
func watchConsul(begun time.Time, endpoint, service string) error {
	client, err := connectConsul(endpoint)
	if err != nil {
		return err
	}
	options := &api.QueryOptions{WaitTime: 10 * time.Second}
	for {
		_, meta, err := client.Health().Service(service, "", false, options)
		switch {
		case err != nil:
			return err
		case options.WaitIndex == 0:
			fmt.Println("listed", time.Since(begun).Microseconds())
		case options.WaitIndex != meta.LastIndex:
			fmt.Println("seen", time.Now().UnixNano())
		}
		options.WaitIndex = meta.LastIndex
	}
}
