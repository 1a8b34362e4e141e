package main

import (
	"net"
	"strconv"

	"github.com/go-kit/kit/sd"
	kit "github.com/go-kit/kit/sd/eureka"
	"github.com/go-kit/log"
	"github.com/hudl/fargo"
)

// Go kit's sd/eureka, used as its integration test does.
type goKitEureka struct {
	conn fargo.EurekaConnection
}

func openGoKitEureka(endpoint string) (framework, error) {
	var config fargo.Config
	config.Eureka.ServiceUrls = []string{"http://" + endpoint + "/eureka"}
	config.Eureka.PollIntervalSeconds = 1
	return goKitEureka{fargo.NewConnFromConfig(config)}, nil
}

func (g goKitEureka) follow(service string, seen func([]string)) error {
	instancer := kit.NewInstancer(&g.conn, service, log.NewNopLogger())
	defer instancer.Stop()
	events := make(chan sd.Event)
	go instancer.Register(events)
	for event := range events {
		// An application without instances is an error to it.
		seen(event.Instances)
	}
	return nil
}

func (g goKitEureka) register(service, address string) (func() error, error) {
	host, text, err := net.SplitHostPort(address)
	if err != nil {
		return nil, err
	}
	port, err := strconv.Atoi(text)
	if err != nil {
		return nil, err
	}
	registrar := kit.NewRegistrar(&g.conn, &fargo.Instance{
		InstanceId:       address + ":" + service,
		HostName:         host,
		App:              service,
		IPAddr:           host,
		VipAddress:       service,
		SecureVipAddress: service,
		Port:             port,
		PortEnabled:      true,
		Status:           fargo.UP,
		DataCenterInfo:   fargo.DataCenterInfo{Name: fargo.MyOwn},
		LeaseInfo:        fargo.LeaseInfo{RenewalIntervalInSecs: 1},
	}, log.NewNopLogger())
	registrar.Register()
	return func() error {
		registrar.Deregister()
		return nil
	}, nil
}

func (g goKitEureka) call(service string, calls int, answered func(string)) error {
	app, err := g.conn.GetApp(service)
	if err != nil {
		return err
	}
	var addresses []string
	for _, instance := range app.Instances {
		addresses = append(addresses, net.JoinHostPort(instance.IPAddr, strconv.Itoa(instance.Port)))
	}
	return callEach(service, addresses, calls, answered)
}
