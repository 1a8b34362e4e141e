package main

import (
	"context"
	"fmt"
	"net"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/peer"
)

// The book service of proto/book.proto. Its messages by their tags, so that no generated code is needed.

type bookInfoParams struct {
	BookID int32 `protobuf:"varint,1,opt,name=book_id,proto3"`
}

type bookInfo struct {
	BookID   int32  `protobuf:"varint,1,opt,name=book_id,proto3"`
	BookName string `protobuf:"bytes,2,opt,name=book_name,proto3"`
}

type bookListParams struct {
	Page  int32 `protobuf:"varint,1,opt,name=page,proto3"`
	Limit int32 `protobuf:"varint,2,opt,name=limit,proto3"`
}

type bookList struct {
	BookList []*bookInfo `protobuf:"bytes,1,rep,name=book_list,proto3"`
}

func (m *bookInfoParams) Reset()         { *m = bookInfoParams{} }
func (m *bookInfoParams) String() string { return fmt.Sprintf("%+v", *m) }
func (*bookInfoParams) ProtoMessage()    {}
func (m *bookInfo) Reset()               { *m = bookInfo{} }
func (m *bookInfo) String() string       { return fmt.Sprintf("%+v", *m) }
func (*bookInfo) ProtoMessage()          {}
func (m *bookListParams) Reset()         { *m = bookListParams{} }
func (m *bookListParams) String() string { return fmt.Sprintf("%+v", *m) }
func (*bookListParams) ProtoMessage()    {}
func (m *bookList) Reset()               { *m = bookList{} }
func (m *bookList) String() string       { return fmt.Sprintf("%+v", *m) }
func (*bookList) ProtoMessage()          {}

const (
	php  = "21天精通php"
	java = "21天精通java"
)

func method[P any](name string, answer func(*P) any) grpc.MethodDesc {
	handle := func(_ any, _ context.Context, decode func(any) error, _ grpc.UnaryServerInterceptor) (any, error) {
		params := new(P)
		if err := decode(params); err != nil {
			return nil, err
		}
		return answer(params), nil
	}
	return grpc.MethodDesc{MethodName: name, Handler: handle}
}

var bookService = grpc.ServiceDesc{
	ServiceName: "book.BookService",
	Methods: []grpc.MethodDesc{
		method("GetBookInfo", func(params *bookInfoParams) any { return &bookInfo{params.BookID, php} }),
		method("GetBookList", func(*bookListParams) any {
			return &bookList{[]*bookInfo{{1, php}, {2, java}}}
		}),
	},
}

// Serves books on an address, registers it, and deregisters it when stdin ends.
func serve(framework framework, service, address string) error {
	listener, err := net.Listen("tcp", address)
	if err != nil {
		return err
	}
	server := grpc.NewServer()
	server.RegisterService(&bookService, nil)
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

// Connects to a target, asks it for books, and tells who answered.
func dialAndCall(target string, calls int, answered func(string), more ...grpc.DialOption) error {
	connection, err := dial(target, more...)
	if err != nil {
		return err
	}
	defer connection.Close()
	return bookCalls(connection, calls, answered)
}

// Asks for books over a connection, and tells who answered.
func bookCalls(connection *grpc.ClientConn, calls int, answered func(string)) error {
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	for call := range calls {
		var who peer.Peer
		asked, got := bookInfoParams{BookID: int32(call)}, bookInfo{}
		options := []grpc.CallOption{grpc.Peer(&who), grpc.WaitForReady(true)}
		if err := connection.Invoke(ctx, "/book.BookService/GetBookInfo", &asked, &got, options...); err != nil {
			return err
		}
		if got.BookID != asked.BookID || got.BookName != php {
			return fmt.Errorf("%v answers %v", &asked, &got)
		}
		answered(who.Addr.String())
	}
	return nil
}
