// Package proto holds the messages that processes of rbd-warden exchange. Each
// sub-package is one protocol; its Go code is generated from the .proto file beside
// it and committed. To generate it again: go generate ./proto (needs protoc; the
// plug-ins are this module's own tools).
package proto

//go:generate go build -o ../bin/ google.golang.org/protobuf/cmd/protoc-gen-go google.golang.org/grpc/cmd/protoc-gen-go-grpc
//go:generate protoc --plugin=protoc-gen-go=../bin/protoc-gen-go --plugin=protoc-gen-go-grpc=../bin/protoc-gen-go-grpc --go_out=. --go_opt=paths=source_relative --go-grpc_out=. --go-grpc_opt=paths=source_relative control/v1/control.proto cluster/v1/cluster.proto
