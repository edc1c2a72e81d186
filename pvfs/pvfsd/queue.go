package pvfsd

import (
	"context"
	"fmt"
	"net"
	"sync"
	"time"
)

// message is one frame to be sent: head, which begins with the frame header,
// then data.
type message struct {
	head  []byte
	data  []byte
	reply chan struct{} // receives one token back once the message is written
	done  func()        // called once data is no longer used
}

func (m *message) finish() {
	if m.reply != nil {
		<-m.reply
	}
	if m.done != nil {
		m.done()
	}
}

// outQueue holds the messages of one connection in the order they are sent.
// Adding never blocks: replies and quota bound what is in it.
type outQueue struct {
	wake chan struct{} // capacity 1: something was added

	mu     sync.Mutex
	msgs   []message // guarded by mu
	closed bool      // guarded by mu; messages are finished unsent
}

func (q *outQueue) add(m message) {
	q.mu.Lock()
	closed := q.closed
	if !closed {
		q.msgs = append(q.msgs, m)
	}
	q.mu.Unlock()
	if closed {
		m.finish()
		return
	}
	select {
	case q.wake <- struct{}{}:
	default:
	}
}

// take moves up to writeGather messages into batch.
func (q *outQueue) take(batch []message) []message {
	q.mu.Lock()
	defer q.mu.Unlock()
	n := min(len(q.msgs), writeGather)
	batch = append(batch, q.msgs[:n]...)
	rest := copy(q.msgs, q.msgs[n:])
	clear(q.msgs[rest:])
	q.msgs = q.msgs[:rest]
	return batch
}

// write sends messages until ctx is done or the peer takes nothing for limit.
func (q *outQueue) write(ctx context.Context, nc net.Conn, limit time.Duration) error {
	var batch []message
	var vec net.Buffers
	for {
		batch = q.take(batch[:0])
		if len(batch) == 0 {
			select {
			case <-q.wake:
				continue
			case <-ctx.Done():
				return nil
			}
		}
		vec = vec[:0]
		for i := range batch {
			vec = append(vec, batch[i].head)
			if len(batch[i].data) > 0 {
				vec = append(vec, batch[i].data)
			}
		}
		err := nc.SetWriteDeadline(time.Now().Add(limit))
		if err == nil {
			out := vec // WriteTo consumes its receiver
			_, err = out.WriteTo(nc)
		}
		for i := range batch {
			batch[i].finish()
		}
		clear(batch)
		clear(vec)
		if err != nil {
			return fmt.Errorf("write: %w", err)
		}
	}
}

// drop finishes what was not sent; later messages are finished at once.
func (q *outQueue) drop() {
	q.mu.Lock()
	msgs := q.msgs
	q.msgs, q.closed = nil, true
	q.mu.Unlock()
	for i := range msgs {
		msgs[i].finish()
	}
}

// quota bounds the flow buffers that one connection holds. It always may hold
// one; more come from a budget that all connections share, so that clients who
// take no data cannot keep buffers from the others.
type quota struct {
	budget chan struct{} // a token a buffer in use beyond the first ones
	freed  chan struct{} // capacity 1: a buffer was released

	mu   sync.Mutex
	held int // guarded by mu
	paid int // of held, those taken from budget; guarded by mu
}

// maxHeld bounds the buffers of one direction of one connection.
const maxHeld = 8

func newQuota(budget chan struct{}) *quota {
	return &quota{budget: budget, freed: make(chan struct{}, 1)}
}

// acquire waits until one more buffer may be held.
func (q *quota) acquire(ctx context.Context) error {
	for !q.tryAcquire() {
		select {
		case <-q.freed:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	q.signal() // there may be room for another waiter
	return nil
}

func (q *quota) signal() {
	select {
	case q.freed <- struct{}{}:
	default:
	}
}

func (q *quota) tryAcquire() bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.held >= maxHeld {
		return false
	}
	if q.held > q.paid {
		select {
		case q.budget <- struct{}{}:
			q.paid++
		default:
			return false
		}
	}
	q.held++
	return true
}

func (q *quota) release() {
	q.mu.Lock()
	q.held--
	if q.paid > 0 {
		q.paid--
		<-q.budget
	}
	q.mu.Unlock()
	q.signal()
}
