package main

import (
	"time"

	kit "github.com/go-kit/kit/sd/zk"
	"github.com/go-kit/log"
)

// Go kit's sd/zk, used as its examples do.
type goKitZooKeeper struct {
	client kit.Client
}

const goKitRoot = "/services"

func openGoKitZooKeeper(endpoint string) (framework, error) {
	client, err := kit.NewClient([]string{endpoint}, log.NewNopLogger(), kit.SessionTimeout(5*time.Second))
	if err != nil {
		return nil, err
	}
	return goKitZooKeeper{client}, nil
}

func (g goKitZooKeeper) follow(service string, seen func([]string)) error {
	instancer, err := kit.NewInstancer(g.client, goKitRoot+"/"+service, log.NewNopLogger())
	if err != nil {
		return err
	}
	defer instancer.Stop()
	return followEvents(instancer, seen)
}

func (g goKitZooKeeper) register(service, address string) (func() error, error) {
	entry := kit.Service{Path: goKitRoot, Name: service, Data: []byte(address)}
	if err := g.client.CreateParentNodes(goKitRoot + "/" + service); err != nil {
		return nil, err
	}
	registrar := kit.NewRegistrar(g.client, entry, log.NewNopLogger())
	registrar.Register()
	return func() error {
		// It would delete the service and not its own node, which only goes with its session.
		registrar.Deregister()
		g.client.Stop()
		return nil
	}, nil
}

func (g goKitZooKeeper) call(service string, calls int, answered func(string)) error {
	addresses, _, err := g.client.GetEntries(goKitRoot + "/" + service)
	if err != nil {
		return err
	}
	return callEach(service, addresses, calls, answered)
}
