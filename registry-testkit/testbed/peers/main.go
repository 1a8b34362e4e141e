// Peers: programs of other frameworks, as tests and benchmarks run them beside callsign.
//
//	peers watch   HOW ENDPOINT SERVICE            when the set was listed, and when each change was seen
//	peers follow  HOW ENDPOINT SERVICE            every set of addresses that is seen
//	peers serve   HOW ENDPOINT SERVICE ADDRESS    the book service, registered until stdin ends
//	peers call    HOW ENDPOINT SERVICE CALLS      calls of that service, and who answered
//	peers interop ADDRESS STREAMS                 gRPC-Go's interop server, until stdin ends; registered nowhere
//
// In etcd HOW is "gokit" (Go kit's sd/etcdv3), "grpc" (gRPC-Go's naming) or, to watch, "raw" (etcd's own client); in
// Consul "gokit-consul" (Go kit's sd/consul), "kratos" or, to watch, "consul" (Consul's own client); in
// ZooKeeper "gokit-zk" (Go kit's sd/zk); in Eureka "gokit-eureka" (Go kit's sd/eureka).
// What a test reads is a line on stdout that begins with a word of its own.
package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/zap"
)

// A framework's way to find and to be found.
type framework interface {
	// Calls seen with each set of addresses, the first as soon as it is listed. Never returns without an error.
	follow(service string, seen func([]string)) error
	// Registers an address, and returns how it is deregistered.
	register(service, address string) (func() error, error)
	// Calls a service so many times, and tells who answered each.
	call(service string, calls int, answered func(string)) error
}

func main() {
	if err := run(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "peers:", err)
		os.Exit(1)
	}
}

func run(args []string) error {
	if len(args) == 3 && args[0] == "interop" {
		streams, err := strconv.Atoi(args[2])
		if err != nil {
			return err
		}
		return serveInterop(args[1], streams)
	}
	if len(args) < 4 {
		return fmt.Errorf("usage: peers watch|follow|serve|call HOW ENDPOINT SERVICE ...")
	}
	begun := time.Now()
	verb, how, endpoint, service, rest := args[0], args[1], args[2], args[3], args[4:]
	if verb == "watch" && how == "raw" {
		return watchRaw(begun, endpoint, service)
	}
	if verb == "watch" && how == "consul" {
		return watchConsul(begun, endpoint, service)
	}
	peer, err := open(how, endpoint)
	if err != nil {
		return err
	}
	switch {
	case verb == "watch" && len(rest) == 0:
		listed := false
		return peer.follow(service, func([]string) {
			if !listed {
				listed = true
				fmt.Println("listed", time.Since(begun).Microseconds())
				return
			}
			fmt.Println("seen", time.Now().UnixNano())
		})
	case verb == "follow" && len(rest) == 0:
		return peer.follow(service, func(addresses []string) {
			fmt.Println("set", strings.Join(addresses, ","))
		})
	case verb == "serve" && len(rest) == 1:
		return serve(peer, service, rest[0])
	case verb == "call" && len(rest) == 1:
		calls, err := strconv.Atoi(rest[0])
		if err != nil {
			return err
		}
		return peer.call(service, calls, func(address string) {
			fmt.Println("answered", address)
		})
	}
	return fmt.Errorf("unknown: %v", args)
}

func open(how, endpoint string) (framework, error) {
	switch how {
	case "gokit":
		return openGoKit(endpoint)
	case "grpc":
		return openNaming(endpoint)
	case "gokit-consul":
		return openGoKitConsul(endpoint)
	case "kratos":
		return openKratos(endpoint)
	case "gokit-zk":
		return openGoKitZooKeeper(endpoint)
	case "gokit-eureka":
		return openGoKitEureka(endpoint)
	}
	return nil, fmt.Errorf("unknown framework %q", how)
}

func connect(endpoint string) (*clientv3.Client, error) {
	return clientv3.New(clientv3.Config{
		Endpoints:   []string{endpoint},
		DialTimeout: 5 * time.Second,
		Logger:      zap.NewNop(),
	})
}

// The least that anybody can do: one list, one watch, nothing decoded.
func watchRaw(begun time.Time, endpoint, service string) error {
	client, err := connect(endpoint)
	if err != nil {
		return err
	}
	prefix := goKitPrefix + service + "/"
	got, err := client.Get(context.Background(), prefix, clientv3.WithPrefix())
	if err != nil {
		return err
	}
	from := clientv3.WithRev(got.Header.Revision + 1)
	changes := client.Watch(context.Background(), prefix, clientv3.WithPrefix(), from)
	fmt.Println("listed", time.Since(begun).Microseconds())
	for change := range changes {
		if len(change.Events) > 0 {
			fmt.Println("seen", time.Now().UnixNano())
		}
	}
	return fmt.Errorf("the watch ended")
}

func waitForStdin() {
	_, _ = io.Copy(io.Discard, os.Stdin)
}
