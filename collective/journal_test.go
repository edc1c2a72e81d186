package collective

import (
	"encoding/json"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

func rankMembers(job JobID, ranks ...Rank) []Member {
	var out []Member
	for _, r := range ranks {
		out = append(out, Member{job, r})
	}
	return out
}

func TestGather(t *testing.T) {
	in := append(rankMembers(7, 3, 1, 2, 9, 2), Member{}, Member{}, Member{Job: 2, Rank: 5})
	got := Gather(in)
	require.Equal(t, []Members{
		{Count: 2},
		{Job: 2, Ranks: []Ranks{{5, 5}}, Count: 1},
		{Job: 7, Ranks: []Ranks{{1, 3}, {9, 9}}, Count: 4},
	}, got)
	require.Equal(t, "processes of no job and job 0000000000000002 (rank 5) and job 0000000000000007 (ranks 1-3, 9)", membersText(got))
}

// TestMembersAdd: in any order, as Gather.
func TestMembersAdd(t *testing.T) {
	for _, order := range [][]Rank{{1, 2, 3, 9}, {9, 3, 1, 2}, {3, 9, 2, 1, 1, 3}, {1, 3, 2, 9}} {
		m := Gather(rankMembers(7, order[0]))[0]
		for _, r := range order[1:] {
			m.add(Member{7, r})
		}
		require.Equal(t, Gather(rankMembers(7, 1, 2, 3, 9))[0], m, "%v", order)
	}
}

func record(op string, object uint64, calls int, job JobID) Record {
	r := Record{Op: op, Object: object, Rounds: 1, Calls: calls, Bytes: 10}
	var members []Member
	for i := range calls {
		members = append(members, Member{job, Rank(i)})
	}
	r.Members = Gather(members)
	return r
}

// TestJournalIsBounded: the oldest go first, and who calls alone does not
// drive out the others.
func TestJournalIsBounded(t *testing.T) {
	j := NewJournal(3)
	alone := func(object uint64, rank Rank) {
		if !j.Alone("read", object, Member{1, rank}, 10, time.Millisecond, Outcome{Requests: 1}) {
			r := record("read", object, 1, 1)
			r.Members[0].Ranks[0] = Ranks{rank, rank}
			r.Took, r.Requests = time.Millisecond, 1
			j.Add(r)
		}
	}
	j.Add(record("write", 5, 4, 1))
	for i := range 100 {
		alone(6, Rank(i%2))
	}
	got := j.Select(0, 0)
	require.Len(t, got, 2)
	require.Equal(t, 100, got[1].Calls)
	require.Equal(t, "read: 100 calls of job 0000000000000001 (ranks 0-1), 1000 B; each alone; 100 requests, 100 ms", got[1].String())

	j.Add(record("write", 5, 3, 2))
	j.Add(record("write", 5, 2, 2)) // drives out the first
	require.Len(t, j.Select(5, 0), 2)
	require.Len(t, j.Select(5, 2), 2)
	require.Len(t, j.Select(0, 1), 1)
	require.Empty(t, j.Select(6, 2))
	j.Add(record("write", 5, 2, 2)) // drives out those who called alone
	alone(6, 4)
	got = j.Select(6, 0)
	require.Len(t, got, 1)
	require.Equal(t, 1, got[0].Calls)

	got[0].Members[0].Ranks[0].First = 99
	require.Equal(t, Rank(4), j.Select(6, 0)[0].Members[0].Ranks[0].First, "a copy is given out")
}

func TestRecordString(t *testing.T) {
	r := record("write", 5, 64, 7)
	r.Bytes, r.Extents, r.Runs, r.Requests, r.Moved = 4<<20, 64, 1, 1, 4<<20
	r.Why, r.Held, r.Took, r.Estimate = Complete, 1200*time.Microsecond, 3100*time.Microsecond, 2900*time.Microsecond
	r.Plan, r.Fewer = "whole stripes", "two owners"
	require.Equal(t, "write: 64 calls of job 0000000000000007 (ranks 0-63), 4 MiB in 64 extents, 1 when merged; "+
		"held 1.2 ms until all expected had come; 1 request, 4 MiB moved, 3.1 ms (estimated 2.9 ms); whole stripes; not fewer: two owners", r.String())

	r.Why, r.Missing = Expired, Gather(rankMembers(7, 64, 65))
	require.Contains(t, r.String(), "held 1.2 ms in vain for job 0000000000000007 (ranks 64-65); ")
	for why := range Full + 1 {
		for _, held := range []time.Duration{0, time.Second} {
			r.Why, r.Held = why, held
			require.NotContains(t, r.String(), "; ; ")
		}
	}
}

func TestRecordJSON(t *testing.T) {
	r := record("write", 1<<63+1, 2, 7)
	r.Why, r.Outcome = Elsewhere, Outcome{Requests: 2, Fewer: "x"}
	b, err := json.Marshal(r)
	require.NoError(t, err)
	require.Contains(t, string(b), `"why":"elsewhere"`)
	require.Contains(t, string(b), `"object":"9223372036854775809"`)
	var back Record
	require.NoError(t, json.Unmarshal(b, &back))
	require.Equal(t, r, back)
	require.Error(t, new(Why).UnmarshalText([]byte("because")))
}
