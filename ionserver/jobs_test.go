package ionserver

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/zoidfs/zoidfs/collective"
	"github.com/zoidfs/zoidfs/ionserver/ionpb"
)

// TestJobs: two mounts have ranks of a job, more of them by and by; it ends when
// neither has any, be it told or its session over.
func TestJobs(t *testing.T) {
	now := time.Unix(1000, 0)
	table := newJobTable()
	require.Nil(t, table.lookup(7))
	job := func(ranks ...uint32) *ionpb.JobReq {
		return &ionpb.JobReq{Id: 7, Name: "hydra a:1", Uid: 5, Size: 4, Ranks: ranks}
	}
	table.tell(1, job(0), now)
	table.tell(1, job(0, 1), now)
	table.tell(2, job(2), now)
	before := table.lookup(7)
	table.tell(2, job(2, 3), now)
	require.Equal(t, 3, before.Here(), "what was looked up does not change")
	j := table.lookup(7)
	require.Equal(t, &jobInfo{ID: 7, Name: "hydra a:1", UID: 5, Size: 4, Began: now, Ranks: map[uint64][]collective.Rank{1: {0, 1}, 2: {2, 3}}, account: before.account}, j)
	require.NotNil(t, j.account)
	table.tell(1, job(), now.Add(time.Second))
	require.True(t, table.lookup(7).Ended.IsZero())
	table.dropSession(2, now.Add(2*time.Second))
	require.Equal(t, now.Add(2*time.Second), table.lookup(7).Ended)
	require.Len(t, table.all(), 1)
	table.tell(3, job(0), now.Add(3*time.Second))
	require.True(t, table.lookup(7).Ended.IsZero(), "it goes on")
	table.tell(1, &ionpb.JobReq{Id: 8}, now)
	require.Nil(t, table.lookup(8), "a job without ranks is none")
}

func TestJobsAreBounded(t *testing.T) {
	table := newJobTable()
	for id := range uint64(maxEndedJob + 10) {
		table.tell(1, &ionpb.JobReq{Id: id + 1, Ranks: []uint32{0}}, time.Unix(int64(id), 0))
		table.tell(1, &ionpb.JobReq{Id: id + 1}, time.Unix(int64(id), 0))
	}
	require.Len(t, table.all(), maxEndedJob)
	require.Nil(t, table.lookup(1), "the oldest goes")
	for id := range uint64(maxJobs) {
		table.tell(1, &ionpb.JobReq{Id: 1<<32 + id, Ranks: []uint32{0}}, time.Unix(1<<20, 0))
	}
	require.Len(t, table.all(), maxJobs)
}
