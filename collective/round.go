package collective

import (
	"fmt"
	"slices"
	"time"
)

// Call is one call of one member, as a part of a round.
type Call[T any] struct {
	Token  T // names the call to whoever asks Rounds
	Member Member
	Bytes  int64     // what it adds to the size of its round
	At     time.Time // when it came; set by Arrive
}

// Round is a set of calls that are carried out together. Its calls are fixed
// when it starts.
type Round[K comparable, T any] struct {
	Key     K
	Calls   []Call[T] // in order of arrival, at least one
	Started time.Time
	Why     Why           // what started it just then
	Held    time.Duration // for how long its start was put off for members that were expected
	Missing []Member      // of these, who had not come when it started, sorted
}

// First is when the first of the calls came.
func (r *Round[K, T]) First() time.Time { return r.Calls[0].At }

// Why says what started a round just when it did.
type Why uint8

// The reasons to start a round.
const (
	Alone     Why = iota // nothing like it was in flight, and nobody was worth waiting for
	Behind               // the round in flight had finished
	Complete             // all that were expected had come
	Expired              // it had been held for as long as is allowed
	Elsewhere            // a member that was expected did something else
	Full                 // it was as large as is allowed
)

var whys = [...]string{"alone", "behind", "complete", "expired", "elsewhere", "full"}

// MarshalText gives the word that String returns.
func (w Why) MarshalText() ([]byte, error) { return []byte(w.String()), nil }

// UnmarshalText takes a word that String returns.
func (w *Why) UnmarshalText(text []byte) error {
	i := slices.Index(whys[:], string(text))
	if i < 0 {
		return fmt.Errorf("collective: %q is no reason to start a round", text)
	}
	*w = Why(i)
	return nil
}

func (w Why) String() string {
	if int(w) < len(whys) {
		return whys[w]
	}
	return fmt.Sprintf("why(%d)", uint8(w))
}

// Decision is what Rounds wants done after an event.
type Decision[K comparable, T any] struct {
	Start *Round[K, T] // to be carried out now; nil: none
	Wake  time.Time    // when to call Tick for the key if nothing starts it before; zero: nothing new
}
