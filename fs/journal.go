package fs

import (
	"encoding/json"
	"fmt"

	"github.com/zoidfs/zoidfs/collective"
)

// RoundsXattr is the attribute by which a mount tells what it has carried out
// together lately, with a file or directory; of its root, with all. Its value is
// a Rounds. It is neither stored nor listed, and costs no request.
const RoundsXattr = "user.zoidfs.rounds"

const (
	journalled = 1024     // rounds that a mount remembers
	maxRounds  = 60 << 10 // bytes of a Rounds: the kernel hands over 64 KiB of an attribute
)

// Rounds is what a mount remembers of rounds: the last that fit into an
// attribute.
type Rounds struct {
	Handle  uint64              `json:"handle,string"` // 0: of all
	IONs    []string            `json:"ions"`          // addresses of the I/O nodes, which remember some themselves
	Records []collective.Record `json:"records"`
}

// rounds is the value of RoundsXattr.
func (n *node) rounds() []byte {
	r := Rounds{Handle: n.handle, IONs: n.m.client.View().Members}
	if n.IsRoot() {
		r.Handle = 0
	}
	r.Records = n.m.journal.Select(r.Handle, 0)
	for {
		b, err := json.Marshal(r)
		if err != nil {
			panic(fmt.Sprintf("fs: %T does not marshal: %v", r, err))
		}
		if len(b) <= maxRounds || len(r.Records) == 0 {
			return b
		}
		r.Records = r.Records[(len(r.Records)+3)/4:]
	}
}
