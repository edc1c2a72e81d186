// Package ionpb is the messages between compute nodes and I/O nodes and
// between I/O nodes. ion.proto is the specification; everything but this file
// and op.go is generated from it. Frame is listed there as well, so that any
// protobuf peer can talk to an I/O node, but rpc encodes it by hand.
package ionpb

// protoc-gen-go comes from the protobuf module that go.mod names.
//go:generate sh -c "d=$(mktemp -d) && go build -o $d/protoc-gen-go google.golang.org/protobuf/cmd/protoc-gen-go && protoc --plugin=$d/protoc-gen-go --go_out=. --go_opt=paths=source_relative ion.proto; s=$?; rm -rf $d; exit $s"
