package fs

import (
	"context"
	"fmt"
	"os"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hanwen/go-fuse/v2/fuse"
	"github.com/stretchr/testify/require"
)

func TestPendingSignals(t *testing.T) {
	status := func(pnd, shd, blk, ign, cgt uint64) string {
		return fmt.Sprintf("Name:\tx\nSigQ:\t0/95983\nSigPnd:\t%016x\nShdPnd:\t%016x\nSigBlk:\t%016x\nSigIgn:\t%016x\nSigCgt:\t%016x\n", pnd, shd, blk, ign, cgt)
	}
	const kill, intr, urg, quit, all = 1 << 8, 1 << 1, 1 << 22, 1 << 2, 1<<64 - 1
	for name, tc := range map[string]struct {
		status string
		want   pendingSignals
	}{
		"nothing":                   {status(0, 0, 0, 0, 0), noSignal},
		"SIGKILL":                   {status(kill, 0, 0, 0, 0), deadlySignal},
		"SIGKILL cannot be blocked": {status(kill, 0, all, all, all), deadlySignal},
		"SIGQUIT dumps core":        {status(0, quit, 0, 0, 0), deadlySignal},
		"one of two":                {status(intr, quit, 0, 0, intr), deadlySignal},
		"handled":                   {status(intr, 0, 0, 0, intr), someSignal},
		"ignored":                   {status(0, intr, 0, intr, 0), noSignal},
		"blocked":                   {status(0, intr, intr, 0, 0), noSignal},
		"blocked and handled":       {status(0, intr, intr, 0, intr), noSignal},
		"Go's preemption":           {status(urg, 0, 0, 0, 0), someSignal},
		"unreadable":                {"", noSignal},
	} {
		t.Run(name, func(t *testing.T) { require.Equal(t, tc.want, pendingIn(tc.status)) })
	}
	require.NotEqual(t, deadlySignal, signals(uint32(os.Getpid())))
	require.Equal(t, deadlySignal, signals(1<<22+1), "no such process")
}

// fuseContext is the context of a request by the thread pid, and its interrupt.
func fuseContext(pid uint32) (*fuse.Context, func()) {
	cancel := make(chan struct{})
	return &fuse.Context{Caller: fuse.Caller{Pid: pid}, Cancel: cancel}, func() { close(cancel) }
}

func TestSweepEndsCallsOfTheDying(t *testing.T) {
	var cs calls
	begin := func(pid uint32, sure bool) (*call, func()) {
		ctx, interrupt := fuseContext(pid)
		return cs.begin(ctx, sure), interrupt
	}
	survivor, interrupt1 := begin(1, false)
	victim, interrupt2 := begin(2, false)
	quiet, _ := begin(2, false)
	sure, interrupt3 := begin(2, true)
	unknown, interrupt4 := begin(0, false)
	caller, ok := fuse.FromContext(victim)
	require.True(t, ok)
	require.Equal(t, uint32(2), caller.Pid)

	now := time.Unix(1000, 0)
	dies := func(pid uint32) pendingSignals {
		if pid == 2 {
			return deadlySignal
		}
		return someSignal
	}
	for _, interrupt := range []func(){interrupt1, interrupt2, interrupt3, interrupt4} {
		interrupt()
	}
	cs.sweep(now, dies)
	require.NoError(t, survivor.Err(), "an interrupt alone ends nothing")
	require.ErrorIs(t, victim.Err(), context.Canceled)
	require.NoError(t, quiet.Err(), "not interrupted")
	require.NoError(t, sure.Err())
	require.NoError(t, unknown.Err())
	select {
	case <-victim.Done():
	default:
		t.Fatal("Done is not closed")
	}
	cs.sweep(now.Add(unknownGrace), dies)
	require.Error(t, unknown.Err(), "nobody known to ask")
	victim.end()
	unknown.end()
	cs.closeAll()
	require.Error(t, survivor.Err())
	require.Error(t, sure.Err())
	late, _ := begin(1, true)
	require.Error(t, late.Err(), "born dead")
	for _, c := range []*call{survivor, quiet, sure, late} {
		c.end()
	}
	require.Empty(t, cs.active)
}

// TestSweepOfTheUnheard: over io_uring an interrupt may be lost. Callers are looked at
// now and then all the same.
func TestSweepOfTheUnheard(t *testing.T) {
	for _, rings := range []bool{false, true} {
		cs := calls{rings: rings}
		begin := func(pid uint32, sure bool) *call {
			ctx, _ := fuseContext(pid)
			return cs.begin(ctx, sure)
		}
		woken := 0
		survivor, victim, sure, unknown, waiter := begin(1, false), begin(2, false), begin(2, true), begin(0, false), begin(1, true)
		waiter.wokenBy(func() { woken++ })
		looks := 0
		for range 2 * unheard {
			cs.sweep(time.Now(), func(pid uint32) pendingSignals {
				looks++
				return []pendingSignals{noSignal, someSignal, deadlySignal}[pid]
			})
		}
		for _, c := range []*call{survivor, sure, unknown, waiter} {
			require.NoError(t, c.Err())
		}
		if rings {
			require.Error(t, victim.Err())
			require.Equal(t, 2, woken)
			require.Equal(t, 6, looks, "seldom")
		} else {
			require.NoError(t, victim.Err())
			require.Zero(t, woken)
			require.Zero(t, looks)
		}
	}
}

func TestSweeperRuns(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var cs calls
		life, end := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() { done <- cs.run(life) }()
		ctx, interrupt := fuseContext(1<<22 + 1)
		c := cs.begin(ctx, false)
		interrupt()
		<-c.Done()
		c.end()
		end()
		require.NoError(t, <-done)
	})
}
