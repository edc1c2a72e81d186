package collective

import "cmp"

// Rank is a process of a parallel job, 0-based within its job.
type Rank int32

// NoRank is the rank of a process of which only the job is known.
const NoRank Rank = -1

// JobID names a job alike on every node. Zero is no job: a process of none is a
// group of its own.
type JobID uint64

// Member is a process as merging sees it.
type Member struct {
	Job  JobID
	Rank Rank // of no meaning if Job is zero
}

// compare orders by job, then by rank.
func (m Member) compare(o Member) int {
	return cmp.Or(cmp.Compare(m.Job, o.Job), cmp.Compare(m.Rank, o.Rank))
}
