package pvfs

import (
	"sync/atomic"
	"time"

	"github.com/zoidfs/zoidfs/pvfs/dist"
	"github.com/zoidfs/zoidfs/pvfs/wire"
)

// callKind is what happens on the wire for a call.
type callKind uint8

const (
	kindPlain      callKind = iota // a request and a response
	kindSmallRead                  // the response ends with the data
	kindSmallWrite                 // the request ends with the data
	kindRead                       // response, then flow messages from the server
	kindWrite                      // flow messages behind the request; response, then completion
)

// piece is bytes of the caller's memory and their place in the file.
type piece struct {
	mem []byte
	off int64 // logical
}

// call is one request to one server through all its attempts. Its owner makes
// it, posts it on a connection, waits on done, and may post it again when the
// connection was lost. Between post and done the connection has it.
type call struct {
	client  *Client
	account *Account // where it is counted besides; may be nil
	op      wire.Op
	kind    callKind
	srv     *server       // of a transfer's call
	frame   []byte        // header and payload of the request
	resp    wire.Response // what the response is decoded into, nil if it is empty
	pieces  []piece       // of reads and writes, in the order of the server's stream
	total   int64         // bytes in pieces
	dist    dist.Distribution
	nr      int // the server's number in dist

	begun    time.Time    // of the first attempt
	done     chan error   // holds one outcome of the attempt
	progress atomic.Int64 // when the attempt last got ahead, see Client.now
	lost     bool         // an earlier attempt may have been carried out
	silent   bool         // the attempt before ended in silence, which goes on with the next
	status   wire.Status  // of the response, after done
	bstream  int64        // size of the datafile before the transfer, after done
	moved    int64        // bytes read or written, after done
	conn     *conn        // of the attempt, nil when there is none
	scratch  callScratch  // memory of the request
	timer    *time.Timer  // of its owner's wait, reused
	st       attempt      // guarded by conn.mu
}

// attempt is what a connection knows of a call.
type attempt struct {
	tag       int64
	started   bool // the request may have reached the server
	answered  bool // the response of a flow has come
	busy      bool // the writer is sending the call's memory
	ready     bool // finished with err, but busy
	finished  bool // done has been told, or will never be
	abandoned bool // the owner is gone; its memory must not be touched
	slot      bool // counts against the server's limit
	err       error

	piece int   // next piece to send or fill
	off   int   // next byte in it
	left  int64 // bytes still to send or receive
}

// callScratch is memory that requests are built from, so that they need not
// allocate it.
type callScratch struct {
	cap     wire.Capability
	handles [2]wire.Handle
	hints   [1]wire.Hint
	io      wire.IOReq
	small   wire.SmallIOReq
	ioResp  wire.IOResp
	smResp  wire.SmallIOResp
}

// newCall returns an empty call, counted on a too unless that is nil.
func (c *Client) newCall(a *Account, op wire.Op, kind callKind, resp wire.Response) *call {
	k, ok := c.calls.Get().(*call)
	if !ok {
		k = &call{client: c, done: make(chan error, 1)}
	}
	k.account, k.op, k.kind, k.resp = a, op, kind, resp
	k.begun = time.Now()
	return k
}

// free gives k back. It must not be abandoned.
func (k *call) free() {
	clear(k.pieces)
	k.pieces, k.total, k.frame = k.pieces[:0], 0, k.frame[:0]
	k.account, k.resp, k.dist, k.conn, k.srv = nil, nil, nil, nil, nil
	k.lost, k.silent, k.status, k.bstream, k.moved = false, false, 0, 0, 0
	k.scratch.io.Type, k.scratch.small.Type = wire.Datatype{}, wire.Datatype{}
	k.scratch.smResp = wire.SmallIOResp{}
	k.st = attempt{}
	k.client.calls.Put(k)
}

// encode builds the request about object obj with target, both of which the
// capability names. The null capability goes with kinds that need no right.
func (k *call) encode(body wire.Request, obj, target Handle) error {
	s := &k.scratch
	s.handles = [2]wire.Handle{obj, target}
	if obj == target {
		return k.encodeFor(body, s.handles[:1])
	}
	return k.encodeFor(body, s.handles[:])
}

// encodeFor builds the request about objects, all of which the capability names.
func (k *call) encodeFor(body wire.Request, objects []Handle) error {
	s, c := &k.scratch, k.client
	s.cap = wire.Capability{Issuer: c.issuer, FSID: c.fsid, Timeout: time.Now().Unix() + lifeSeconds, Ops: wire.MayAll, Handles: objects}
	s.hints[0] = wire.ObjectHint(objects[0])
	var err error
	k.frame, err = wire.AppendRequestFrame(k.frame[:0], 1, &s.cap, s.hints[:], body)
	return err
}

// encodeNull builds a request that needs no right.
func (k *call) encodeNull(body wire.Request) error {
	var err error
	k.frame, err = wire.AppendRequestFrame(k.frame[:0], 1, nil, nil, body)
	return err
}

// addPiece appends memory at the end of the server's stream.
func (k *call) addPiece(mem []byte, off int64) {
	k.total += int64(len(mem))
	if n := len(k.pieces); n > 0 {
		last := &k.pieces[n-1]
		if last.off+int64(len(last.mem)) == off && follows(last.mem, mem) {
			last.mem = last.mem[:len(last.mem)+len(mem)]
			return
		}
	}
	k.pieces = append(k.pieces, piece{mem, off})
}

// follows reports whether b lies right behind a in the same array.
func follows(a, b []byte) bool {
	if cap(a)-len(a) < len(b) || len(b) == 0 {
		return false
	}
	return &a[:len(a)+1][len(a)] == &b[0]
}

// flows reports whether messages of data belong to k.
func (k *call) flows() bool { return k.kind == kindRead || k.kind == kindWrite }

// existing is how many bytes of the call's stream a datafile of the given size
// holds: the server sends those and no more.
func (k *call) existing(bstream int64) int64 {
	if bstream <= 0 {
		return 0
	}
	last, _ := k.dist.Logical(k.nr, bstream-1)
	n := int64(0)
	for i := range k.pieces {
		p := &k.pieces[i]
		if p.off > last {
			break
		}
		n += min(int64(len(p.mem)), last-p.off+1)
	}
	return n
}

// parts is how many separate ranges of the datafile the call's stream has.
func (k *call) parts() int {
	n, end := 0, int64(-1)
	for i := range k.pieces {
		p := &k.pieces[i]
		if from := k.dist.PhysSize(k.nr, p.off); from != end {
			n++
		}
		end = k.dist.PhysSize(k.nr, p.off+int64(len(p.mem)))
	}
	return n
}

// scatter copies b to the start of the call's pieces.
func (k *call) scatter(b []byte) {
	for i := range k.pieces {
		if len(b) == 0 {
			return
		}
		b = b[copy(k.pieces[i].mem, b):]
	}
}

// advance moves the cursor over n bytes.
func (k *call) advance(n int) {
	s := &k.st
	s.left -= int64(n)
	for n > 0 {
		m := len(k.pieces[s.piece].mem) - s.off
		if n < m {
			s.off += n
			return
		}
		n -= m
		s.piece, s.off = s.piece+1, 0
	}
}

// gather appends the memory of the next n bytes to dst and moves the cursor.
func (k *call) gather(dst [][]byte, n int) [][]byte {
	s := &k.st
	s.left -= int64(n)
	for n > 0 {
		mem := k.pieces[s.piece].mem[s.off:]
		if n < len(mem) {
			dst = append(dst, mem[:n])
			s.off += n
			return dst
		}
		dst = append(dst, mem)
		n -= len(mem)
		s.piece, s.off = s.piece+1, 0
	}
	return dst
}

// takeOver copies what is still to be sent, so that the owner's memory is no
// longer needed for it.
func (k *call) takeOver() {
	s := &k.st
	rest := make([]byte, 0, s.left)
	for _, b := range k.gather(nil, int(s.left)) {
		rest = append(rest, b...)
	}
	k.pieces, s.piece, s.off, s.left = []piece{{mem: rest}}, 0, 0, int64(len(rest))
}
