package ionclient

import (
	"slices"
	"sort"
)

// ids numbers the requests of one session and knows up to where all recorded
// ones have been answered. The zero value is ready; its user serialises.
type ids struct {
	last uint64
	open []recorded // in the order of their ids; the first is not answered
}

type recorded struct {
	id       uint64
	answered bool
}

// next returns a new id.
func (i *ids) next(isRecorded bool) uint64 {
	i.last++
	if isRecorded {
		i.open = append(i.open, recorded{id: i.last})
	}
	return i.last
}

// answer tells that id will not be sent again.
func (i *ids) answer(id uint64) {
	n := sort.Search(len(i.open), func(n int) bool { return i.open[n].id >= id })
	if n == len(i.open) || i.open[n].id != id {
		return
	}
	i.open[n].answered = true
	n = 0
	for n < len(i.open) && i.open[n].answered {
		n++
	}
	i.open = slices.Delete(i.open, 0, n)
}

// acked is the largest id such that every recorded request up to it has been
// answered.
func (i *ids) acked() uint64 {
	if len(i.open) > 0 {
		return i.open[0].id - 1
	}
	return i.last
}
