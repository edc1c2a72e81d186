package ranks

import (
	"context"
	"os"
	"os/exec"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/zoidfs/zoidfs/collective"
)

var uid = uint32(os.Getuid())

// newTable runs a table until the test ends.
func newTable(t testing.TB, opt Options) *Table {
	t.Helper()
	opt.Kinds = 1
	table, err := New(opt)
	require.NoError(t, err)
	ctx, end := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- table.Run(ctx) }()
	t.Cleanup(func() {
		end()
		require.NoError(t, <-done)
	})
	return table
}

// lookup asks until the process is known: on a busy machine a looker may be
// late.
func lookup(t testing.TB, table *Table, tid uint32) *Process {
	t.Helper()
	var p *Process
	require.Eventually(t, func() bool {
		p = table.Lookup(tid, uid)
		return p != nil
	}, 10*time.Second, time.Millisecond)
	return p
}

func ranksOf(j, r string) string { return "ZOIDFS_JOB=" + j + " ZOIDFS_SIZE=4 ZOIDFS_RANK=" + r }

func TestRanksOfJobs(t *testing.T) {
	table := newTable(t, Options{})
	a0, a1, b0, none := start(t, ranksOf("a", "0")), start(t, ranksOf("a", "1")), start(t, ranksOf("b", "0")), start(t, "")
	jobA, jobB := NewJobID(uid, byHand, "a", 4), NewJobID(uid, byHand, "b", 4)
	for _, c := range []struct {
		child *child
		want  collective.Caller
	}{
		{a0, collective.Caller{Member: collective.Member{Job: jobA, Rank: 0}, Account: jobA}},
		{a1, collective.Caller{Member: collective.Member{Job: jobA, Rank: 1}, Account: jobA}},
		{b0, collective.Caller{Member: collective.Member{Job: jobB, Rank: 0}, Account: jobB}},
		{none, collective.Caller{}},
	} {
		p := lookup(t, table, c.child.pid())
		require.Equal(t, c.want, p.Caller())
		require.Same(t, p, table.Lookup(c.child.thread, uid), "a thread is its process")
		require.Same(t, p, table.Known(c.child.thread, uid))
		require.NotEqual(t, c.child.pid(), c.child.thread)
	}
	require.Equal(t, []collective.Rank{0, 1}, table.Ranks(table.Jobs()[0]))
}

func TestNobody(t *testing.T) {
	table := newTable(t, Options{})
	require.Nil(t, table.Lookup(0, uid), "the kernel, or another pid namespace")
	require.Nil(t, table.Lookup(1<<22-1, uid), "no such thread")
	require.Nil(t, table.Known(1, uid), "not seen yet")
	c := start(t, ranksOf("a", "0"))
	lookup(t, table, c.pid())
	require.Nil(t, table.Lookup(c.pid(), uid+1), "of another user")
	var p *Process
	require.Zero(t, p.Caller())
	require.Nil(t, p.Job())
	p.Writing(1)
}

// TestExit: a process is forgotten when it exits, and its job ends.
func TestExit(t *testing.T) {
	changed, ended := make(chan *Job, 10), make(chan *Job, 10)
	table := newTable(t, Options{Changed: func(j *Job) { changed <- j }, Ended: func(j *Job) { ended <- j }})
	c := start(t, ranksOf("a", "0"))
	p := lookup(t, table, c.pid())
	j := <-changed
	require.Same(t, j, p.Job())
	require.Equal(t, State{Ranks: 1, Processes: 1}, table.State(j))
	c.end()
	require.Eventually(t, func() bool { return table.Known(c.pid(), uid) == nil && table.Known(c.thread, uid) == nil }, 10*time.Second, time.Millisecond)
	require.Equal(t, collective.Caller{Account: j.ID}, p.Caller(), "what it leaves open is closed for the job")
	require.Same(t, j, <-ended)
	require.True(t, table.State(j).Ended)
	again := start(t, ranksOf("a", "1"))
	require.Same(t, j, lookup(t, table, again.pid()).Job(), "it goes on")
	require.Same(t, j, <-changed)
	require.False(t, table.State(j).Ended)
}

// TestReuse: another process with the number of one that was known is another.
func TestReuse(t *testing.T) {
	table := newTable(t, Options{})
	c := start(t, ranksOf("a", "0"))
	st, err := table.proc.stat(c.pid())
	require.NoError(t, err)
	old := st
	old.started--
	p, known := table.admit(c.pid(), c.pid(), old)
	require.NotNil(t, p)
	require.False(t, known)
	table.learn(p, old, uid, claim{launcher: byHand, key: "old", rank: 0, size: 2}, true)
	_, _ = table.look(ask{tid: c.thread, uid: uid}, nil)
	got := table.Known(c.pid(), uid)
	require.NotSame(t, p, got)
	require.Equal(t, NewJobID(uid, byHand, "a", 4), got.Job().ID)
	require.Zero(t, p.Caller().Member)
}

// TestHelpers: a program that a rank has started has its environment, and is
// none of the job's ranks; but the program that a script starts is.
func TestHelpers(t *testing.T) {
	table := newTable(t, Options{})
	rank := start(t, ranksOf("a", "2"))
	p := lookup(t, table, rank.pid())
	p.Writing(1)
	job := p.Job().ID
	member := collective.Member{Job: job, Rank: 2}
	helper := start(t, ranksOf("a", "2"))
	q := lookup(t, table, helper.pid())
	require.Equal(t, collective.Caller{Account: job}, q.Caller())
	require.Equal(t, member, p.Caller().Member)
	rank.end()
	require.Eventually(t, func() bool { return q.Caller().Member == member }, 10*time.Second, time.Millisecond, "the rank is free")

	script := start(t, ranksOf("a", "3"), "sh", "-c", "\"$0\"; :")
	s := lookup(t, table, script.pid())
	require.Equal(t, collective.Rank(3), s.Caller().Rank)
	program, err := table.proc.leader(script.thread)
	require.NoError(t, err)
	require.NotEqual(t, script.pid(), program)
	m := lookup(t, table, program)
	require.Equal(t, collective.Member{Job: job, Rank: 3}, m.Caller().Member)
	require.Zero(t, s.Caller().Member)
}

// TestExec: a process that executes its program later is looked at again.
func TestExec(t *testing.T) {
	table := newTable(t, Options{})
	cmd := exec.Command("sh", "-c", "read go; exec env "+ranksOf("a", "0")+" cat")
	in, err := cmd.StdinPipe()
	require.NoError(t, err)
	require.NoError(t, cmd.Start())
	defer func() { _ = in.Close(); _ = cmd.Wait() }()
	p := lookup(t, table, uint32(cmd.Process.Pid))
	require.Zero(t, p.Caller())
	_, err = in.Write([]byte("go\n"))
	require.NoError(t, err)
	require.Eventually(t, func() bool {
		return table.Lookup(uint32(cmd.Process.Pid), uid).Caller().Account != 0
	}, 20*time.Second, time.Millisecond)
	require.Same(t, p, table.Known(uint32(cmd.Process.Pid), uid))
}

// TestLookersAreBusy: who is due to be looked at again stays so until somebody
// looks.
func TestLookersAreBusy(t *testing.T) {
	table, err := New(Options{Kinds: 1}) // nobody runs it
	require.NoError(t, err)
	defer table.Close()
	c := start(t, ranksOf("a", "0"))
	st, err := table.proc.stat(c.pid())
	require.NoError(t, err)
	p, _ := table.admit(c.pid(), c.pid(), st)
	p.next.Store(0)
	table.Lookup(c.pid(), uid)
	require.Zero(t, p.next.Load())
}

// TestOneTaskOfSlurm: the only task of a step that was seen here is merged with
// nothing: it may be a daemon of mpirun, or a shell.
func TestOneTaskOfSlurm(t *testing.T) {
	table := newTable(t, Options{})
	task := func(n string) string {
		return "SLURM_JOB_ID=7 SLURM_STEP_ID=0 SLURM_STEP_NUM_TASKS=2 SLURM_PROCID=" + n
	}
	first := lookup(t, table, start(t, task("0")).pid())
	again := lookup(t, table, start(t, task("0")).pid())
	require.NotZero(t, first.Caller().Account)
	require.Zero(t, first.Caller().Member)
	require.Zero(t, again.Caller().Member)
	second := lookup(t, table, start(t, task("1")).pid())
	require.Equal(t, collective.Rank(1), second.Caller().Rank)
	require.NotZero(t, second.Caller().Member)
	require.NotZero(t, first.Caller().Member)
	require.Zero(t, again.Caller().Member)
}

// TestNamed: what is told of a process counts more than its environment, which
// has its rank.
func TestNamed(t *testing.T) {
	table := newTable(t, Options{})
	vars := "PMI_RANK=1 PMI_SIZE=8 PMI_JOBID=x"
	c := start(t, vars, "sh", "-c", "\"$0\"; :")
	program, err := table.proc.leader(c.thread)
	require.NoError(t, err)
	st, err := table.proc.stat(program)
	require.NoError(t, err)
	want := collective.Member{Job: NewJobID(uid, byHand, "told", 8), Rank: 1}
	own := collective.Member{Job: NewJobID(uid, pmi, "x", 8), Rank: 1}
	p := lookup(t, table, program)
	becomes := func(m collective.Member) {
		t.Helper()
		require.Eventually(t, func() bool {
			return table.Lookup(program, uid).Caller().Member == m
		}, 10*time.Second, time.Millisecond)
	}
	becomes(own)
	groups := table.proc.cgroups(program)
	for _, n := range []Named{
		{PIDs: []uint32{program}}, {PIDs: []uint32{1 << 22, c.pid()}}, {Session: st.session}, {Cgroup: append(groups, "/none")[0]},
	} {
		if n.Cgroup == "/none" {
			continue // this machine has no control groups
		}
		n.UID, n.Job, n.Size = uid, "told", 8
		table.Begin(n)
		becomes(want)
		require.False(t, table.End(uid+1, "told"), "of another user")
		require.True(t, table.End(uid, "told"))
		becomes(own)
	}
	table.Begin(Named{UID: uid + 1, Job: "told", Size: 8, PIDs: []uint32{program}})
	_, ok := table.toldOf(program, st, uid)
	require.False(t, ok, "told by a user who has no say")
	require.Same(t, p, table.Known(program, uid))
}

func TestWithin(t *testing.T) {
	require.True(t, within("/a/b", "/a/b"))
	require.True(t, within("/a/b/c", "/a/b"))
	require.True(t, within("/a/b/c", "/a/b/"))
	require.False(t, within("/a/bc", "/a/b"))
	require.False(t, within("/a", "/a/b"))
}

// TestStuck: a call does not wait long for a process whose memory is locked.
func TestStuck(t *testing.T) {
	table, err := New(Options{Kinds: 1}) // without Run nobody looks
	require.NoError(t, err)
	defer table.Close()
	require.Nil(t, table.Lookup(uint32(os.Getpid()), uid))
}

func TestBounds(t *testing.T) {
	table, err := New(Options{Kinds: 1})
	require.NoError(t, err)
	defer table.Close()
	self := uint32(os.Getpid())
	st, err := table.proc.stat(self)
	require.NoError(t, err)
	p, _ := table.admit(self, self, st)
	for tid := uint32(1 << 23); tid < 1<<23+3*maxThreads; tid++ { // no such thread is there
		q, known := table.admit(tid, self, st)
		require.Same(t, p, q)
		require.True(t, known)
	}
	require.LessOrEqual(t, len(table.byTID), maxThreads+1)
	require.Same(t, p, table.byTID[self])
	for i := range maxJobs + maxEnded + 5 {
		table.mu.Lock()
		table.jobLocked(claim{launcher: byHand, key: "j", size: i + 2}, uid)
		table.mu.Unlock()
	}
	require.Len(t, table.jobs, maxJobs+maxEnded)
	table.endJobs(time.Now().Add(time.Hour))
	_, forgotten := table.endJobs(time.Now())
	require.Len(t, forgotten, maxJobs)
	require.Len(t, table.jobs, maxEnded)
	table.mu.Lock()
	table.exitLocked(p)
	table.mu.Unlock()
	require.Empty(t, table.byTID)
}

func BenchmarkLookup(b *testing.B) {
	table := newTable(b, Options{})
	pid := uint32(os.Getpid())
	lookup(b, table, pid)
	b.ReportAllocs()
	for b.Loop() {
		table.Lookup(pid, uid)
	}
}

// BenchmarkLook is the first look at a process.
func BenchmarkLook(b *testing.B) {
	table := newTable(b, Options{})
	pid := uint32(os.Getpid())
	var buf []byte
	for b.Loop() {
		var p *Process
		p, buf = table.look(ask{tid: pid, uid: uid}, buf[:0])
		table.mu.Lock()
		table.exitLocked(p)
		table.mu.Unlock()
	}
}
