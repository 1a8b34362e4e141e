package main

import (
	"context"
	"fmt"
	"time"

	"github.com/go-kit/kit/sd"
	"github.com/go-kit/kit/sd/etcdv3"
	"github.com/go-kit/log"
)

// Go kit's sd/etcdv3, used as its tutorial does.
type goKit struct {
	client etcdv3.Client
}

const goKitPrefix = "/services/"

func openGoKit(endpoint string) (framework, error) {
	client, err := etcdv3.NewClient(context.Background(), []string{endpoint}, etcdv3.ClientOptions{
		DialTimeout:   5 * time.Second,
		DialKeepAlive: 5 * time.Second,
	})
	return goKit{client}, err
}

func (g goKit) follow(service string, seen func([]string)) error {
	instancer, err := etcdv3.NewInstancer(g.client, goKitPrefix+service+"/", log.NewNopLogger())
	if err != nil {
		return err
	}
	defer instancer.Stop()
	return followEvents(instancer, seen)
}

func (g goKit) register(service, address string) (func() error, error) {
	registrar := etcdv3.NewRegistrar(g.client, etcdv3.Service{
		Key:   goKitPrefix + service + "/" + address,
		Value: address,
		TTL:   etcdv3.NewTTLOption(time.Second, 5*time.Second),
	}, log.NewNopLogger())
	registrar.Register()
	return func() error {
		registrar.Deregister()
		return nil
	}, nil
}

// Go kit has no transport of its own: the tutorial dials what its instancer finds.
func (g goKit) call(service string, calls int, answered func(string)) error {
	addresses, err := g.client.GetEntries(goKitPrefix + service + "/")
	if err != nil {
		return err
	}
	return callEach(service, addresses, calls, answered)
}

// Tells the sets that an instancer finds.
func followEvents(instancer sd.Instancer, seen func([]string)) error {
	events := make(chan sd.Event)
	// It sends the present set before it returns, so somebody must be reading by then.
	go instancer.Register(events)
	for event := range events {
		if event.Err != nil {
			return event.Err
		}
		seen(event.Instances)
	}
	return fmt.Errorf("the events ended")
}

// Calls one address after the other.
func callEach(service string, addresses []string, calls int, answered func(string)) error {
	if len(addresses) == 0 {
		return fmt.Errorf("no instance of %s", service)
	}
	for n := range calls {
		if err := dialAndCall("passthrough:///"+addresses[n%len(addresses)], 1, answered); err != nil {
			return err
		}
	}
	return nil
}
