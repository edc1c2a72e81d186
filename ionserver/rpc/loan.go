package rpc

import (
	"net"
	"os"
	"sync"
	"time"

	"google.golang.org/protobuf/encoding/protowire"

	"github.com/zoidfs/zoidfs/internal/shared"
)

const (
	minLoan  = 32 << 10 // bytes; anything shorter is sent
	maxLoans = 32 << 20 // bytes that a peer may have on loan, or an eighth of the region
	maxRefs  = 256      // pieces of a loan
	maxLent  = (1 + 2*maxRefs) * maxVarint

	// returnTime is how long a loan that has come to its end may wait for a
	// packet that goes anyway.
	returnTime = 10 * time.Millisecond
)

// nearConn is a connection between two processes of one machine that can see
// each other's shared memory, or one the other's.
//
// A payload that lies in shared memory is not sent over it but lent: the frame
// says where it is, and the lender leaves it there unchanged until the borrower
// returns the loan, with a packet. The end of the connection returns nothing, for
// the borrower may be reading. So each side keeps the end of a pipe open as long
// as it may read; the other sees that it is closed, by whom or by whose death
// that may be.
type nearConn struct {
	*net.UnixConn
	lender   *lender   // nil: nothing is lent
	borrower *borrower // nil: nothing is borrowed
	end      sync.Once
}

// Close ends the connection, and the loans as soon as they are not in use.
func (c *nearConn) Close() error {
	err := c.UnixConn.Close()
	c.end.Do(func() {
		if c.lender != nil {
			c.lender.end()
		}
		if c.borrower != nil {
			c.borrower.done()
		}
	})
	return err
}

// lends reports whether d is to be lent rather than sent over l.
func (l *link) lends(d Data) bool {
	return l != nil && l.near != nil && l.near.lender != nil && l.near.lender.has(d)
}

// loan is lender.lend if d is to be lent over l, else nil.
func (l *link) loan(d Data) []byte {
	if !l.lends(d) {
		return nil
	}
	return l.near.lender.lend(d)
}

// borrows reports whether loans may come over l.
func (l *link) borrows() bool { return l != nil && l.near != nil && l.near.borrower != nil }

// owesLoans reports whether the peer of l is to be told of loans that are over.
func (l *link) owesLoans() bool { return l.borrows() && l.near.borrower.owes() }

// lender is who lends over a connection.
type lender struct {
	region *shared.Region
	most   int64    // bytes on loan
	line   *os.File // at its end when the peer can see nothing any more
	refs   []byte   // scratch of lend

	mu    sync.Mutex
	last  uint64          // guarded by mu; the last loan
	loans map[uint64]Data // guarded by mu; that were not returned
	bytes int64           // guarded by mu; of loans
	over  bool            // guarded by mu; the connection has ended
}

func newLender(region *shared.Region, line *os.File) *lender {
	most := min(maxLoans, int64(len(region.Bytes()))/8)
	return &lender{region: region, most: most, line: line, loans: make(map[uint64]Data)}
}

// has reports whether d lies in the region as a whole, and is worth lending.
func (l *lender) has(d Data) bool {
	if !d.lend || d.Len() < minLoan || len(d.bufs) > maxRefs {
		return false
	}
	for _, b := range d.bufs {
		if _, ok := l.region.Offset(b.ReadOnlyData()); !ok {
			return false
		}
	}
	return true
}

// lend takes d over, which it has, and returns what to tell the peer: the number of
// the loan, then offset and length of each piece. It returns nil, and d stays the
// caller's, if too much is on loan. One goroutine at a time may call it.
func (l *lender) lend(d Data) []byte {
	n := int64(d.Len())
	l.mu.Lock()
	if l.over || l.bytes+n > l.most {
		l.mu.Unlock()
		return nil
	}
	l.last++
	id := l.last
	l.loans[id] = d
	l.bytes += n
	l.mu.Unlock()
	l.refs = protowire.AppendVarint(l.refs[:0], id)
	for _, b := range d.bufs {
		p := b.ReadOnlyData()
		off, _ := l.region.Offset(p)
		l.refs = protowire.AppendVarint(l.refs, uint64(off))
		l.refs = protowire.AppendVarint(l.refs, uint64(len(p)))
	}
	return l.refs
}

// returned ends a loan.
func (l *lender) returned(id uint64) {
	l.mu.Lock()
	d, ok := l.loans[id]
	if ok {
		delete(l.loans, id)
		l.bytes -= int64(d.Len())
	}
	l.mu.Unlock()
	if ok {
		d.Release()
	}
}

// end lends nothing any more. What is on loan stays until the peer cannot see
// it any more, for which nobody waits: it may take as long as the peer lives.
func (l *lender) end() {
	l.mu.Lock()
	l.over = true
	owed := len(l.loans) > 0
	l.mu.Unlock()
	if !owed {
		_ = l.line.Close()
		return
	}
	go l.recall()
}

// recall takes all loans back when the peer has let go of the region.
func (l *lender) recall() {
	_, _ = l.line.Read(make([]byte, 1)) // returns at the end: nothing is ever written
	_ = l.line.Close()
	l.mu.Lock()
	loans := l.loans
	l.loans = nil
	l.mu.Unlock()
	for _, d := range loans {
		d.Release()
	}
}

// borrower is who borrows over a connection.
type borrower struct {
	mem  []byte   // of the peer
	line *os.File // kept open as long as mem may be read

	mu    sync.Mutex
	uses  int         // guarded by mu; loans, and 1 until the connection has ended
	back  []uint64    // guarded by mu; loans to be returned
	due   *time.Timer // guarded by mu; nil before the first is
	timed bool        // guarded by mu; due runs
	tell  func()      // guarded by mu; has a packet sent
}

// borrow is the payload that refs, from lend, names. It is returned at the end
// of the last hold.
func (b *borrower) borrow(refs []byte) (Data, error) {
	id, n := protowire.ConsumeVarint(refs)
	if n < 0 {
		return Data{}, errMalformed
	}
	var pieces [][]byte
	total := uint64(0)
	for refs = refs[n:]; len(refs) > 0; {
		off, n := protowire.ConsumeVarint(refs)
		if n < 0 {
			return Data{}, errMalformed
		}
		size, m := protowire.ConsumeVarint(refs[n:])
		if m < 0 || size > MaxData || off > uint64(len(b.mem)) || size > uint64(len(b.mem))-off {
			return Data{}, errMalformed
		}
		refs = refs[n+m:]
		pieces = append(pieces, b.mem[off:off+size:off+size])
		total += size
	}
	if total > MaxData || len(pieces) > maxRefs {
		return Data{}, errTooLong
	}
	b.mu.Lock()
	if b.uses == 0 {
		b.mu.Unlock()
		return Data{}, net.ErrClosed
	}
	b.uses++
	b.mu.Unlock()
	return Lent(pieces, func() { b.giveBack(id) }), nil
}

// giveBack has a loan returned, with the next packet or in a while.
func (b *borrower) giveBack(id uint64) {
	b.mu.Lock()
	b.back = append(b.back, id)
	if !b.timed && b.tell != nil {
		b.timed = true
		if b.due == nil {
			b.due = time.AfterFunc(returnTime, b.remind)
		} else {
			b.due.Reset(returnTime)
		}
	}
	b.mu.Unlock()
	b.done()
}

// remind has a packet sent if no other one has taken the returns along.
func (b *borrower) remind() {
	b.mu.Lock()
	b.timed = false
	tell := b.tell
	late := len(b.back) > 0
	b.mu.Unlock()
	if late && tell != nil {
		tell()
	}
}

// onReturn sets what has a packet sent; nil: nothing.
func (b *borrower) onReturn(tell func()) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.tell = tell
}

// owes reports whether there is a loan to be returned.
func (b *borrower) owes() bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	return len(b.back) > 0
}

// appendReturns adds the loans to be returned, which then are, to a packet.
func (b *borrower) appendReturns(h []byte) []byte {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, id := range b.back {
		h = append(h, fieldReturned<<3|byte(protowire.VarintType))
		h = protowire.AppendVarint(h, id)
	}
	b.back = b.back[:0]
	return h
}

// done ends a use. With the last one the peer's memory is out of sight.
func (b *borrower) done() {
	b.mu.Lock()
	b.uses--
	last := b.uses == 0
	if last && b.due != nil {
		b.due.Stop()
	}
	b.mu.Unlock()
	if last {
		_ = shared.Unmap(b.mem)
		_ = b.line.Close()
	}
}
