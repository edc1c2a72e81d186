// Package rpc carries frames between compute nodes and I/O nodes over gRPC:
// one bidirectional stream per connection, replies in any order, payloads
// never copied between the caller's memory and the transport.
//
// It does not know what the operations mean, does not reconnect and does not
// retry: a stream that breaks fails everything pending on it with ErrBroken,
// and the caller decides. Conn, Request and Data are safe for concurrent use.
//
// The wire format is message Frame of ion.proto, encoded by this package's
// own codec, because a generated one copies the payload twice. A link below
// gRPC's transport saves the two copies that it would make, near.go the costs of
// TCP between processes of one machine, and loan.go there the sending itself. The settings of the transport
// are in tune.go with the reasons.
package rpc
