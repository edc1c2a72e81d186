package ionserver

import "maps"

// maxReplies bounds what one session may have running and unacknowledged.
const maxReplies = 1 << 16

// verdict is what to do with a request that must not be carried out twice.
type verdict int

const (
	runIt    verdict = iota // first seen: carry it out, then Finish
	joinIt                  // it runs; the answer will go to the new responder too
	answerIt                // it was carried out; send the kept answer again
	refuseIt                // the client has its answer already: a stray duplicate
	overflow                // too many unacknowledged requests
)

// replyTable keeps one session's answers to requests that change something
// until the client has acknowledged them, so that a request sent again after
// a broken connection is carried out once. R is where an answer goes, V is
// the answer. It is pure; the caller serialises calls.
//
//	request     not known    running      answered     at or below acked
//	Begin       runIt        joinIt       answerIt     refuseIt
//	Finish      (bug)        answered     (bug)        forgotten
type replyTable[R, V any] struct {
	max     int
	acked   uint64 // every id at or below it has been answered to the client
	entries map[uint64]*replyEntry[R, V]
}

type replyEntry[R, V any] struct {
	done   bool
	answer V
	to     []R // where the answer of a running request goes
}

func newReplyTable[R, V any](limit int) *replyTable[R, V] {
	return &replyTable[R, V]{max: limit, entries: make(map[uint64]*replyEntry[R, V])}
}

// Begin takes note of request id, which came with the client's acked, and
// whose answer goes to r. The answer is meaningful with answerIt only.
func (t *replyTable[R, V]) Begin(id, acked uint64, r R) (verdict, V) {
	t.Ack(acked)
	var none V
	e := t.entries[id]
	switch {
	case e != nil && e.done:
		return answerIt, e.answer
	case e != nil:
		e.to = append(e.to, r) // the older ones' connections are gone, most likely
		return joinIt, none
	case id <= t.acked:
		return refuseIt, none
	case len(t.entries) >= t.max:
		return overflow, none
	}
	t.entries[id] = &replyEntry[R, V]{to: []R{r}}
	return runIt, none
}

// Finish keeps the answer of a running request and returns where it goes.
func (t *replyTable[R, V]) Finish(id uint64, answer V) []R {
	e := t.entries[id]
	to := e.to
	e.done, e.answer, e.to = true, answer, nil
	if id <= t.acked {
		delete(t.entries, id)
	}
	return to
}

// Ack forgets the answers to requests up to acked.
func (t *replyTable[R, V]) Ack(acked uint64) {
	if acked <= t.acked {
		return
	}
	if acked-t.acked < uint64(len(t.entries)) {
		for id := t.acked + 1; id <= acked; id++ {
			if e := t.entries[id]; e != nil && e.done {
				delete(t.entries, id)
			}
		}
	} else {
		maps.DeleteFunc(t.entries, func(id uint64, e *replyEntry[R, V]) bool { return e.done && id <= acked })
	}
	t.acked = acked
}

// Len is the number of requests kept, running ones included.
func (t *replyTable[R, V]) Len() int { return len(t.entries) }
