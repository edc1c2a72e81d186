package rpc

import (
	"context"
	"errors"
	"sync"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/zoidfs/zoidfs/ionserver/ionpb"
)

// TestCallbackWhileCalling: many requests in both directions, with equal ids;
// a request is answered only after the callback made for it was.
func TestCallbackWhileCalling(t *testing.T) {
	s := &service{handle: func(r *Request) {
		a, err := r.Peer().Call(context.Background(), &Frame{Op: ionpb.Op_REVOKE, Handle: r.Handle, Off: 7})
		if err != nil {
			r.Fail(err)
			return
		}
		r.Reply(&Frame{Off: a.Off, Errno: a.Errno})
	}}
	counters := new(Counters)
	c := dial(t, serve(t, s, ServerOptions{Workers: 101}), Options{Counters: counters, Callback: func(_ context.Context, f *Frame) *Frame {
		if f.Handle == 3 {
			return &Frame{Errno: syscall.EBADF}
		}
		return &Frame{Off: f.Off + int64(f.Handle)}
	}})
	var wg sync.WaitGroup
	for i := range uint64(100) {
		wg.Go(func() {
			reply, err := c.Call(context.Background(), &Frame{Op: ionpb.Op_OPEN, Handle: i})
			switch {
			case err != nil:
				t.Error(err)
			case i == 3 && reply.Errno != syscall.EBADF, i != 3 && reply.Off != int64(7+i):
				t.Errorf("call %d: %+v", i, reply)
			}
		})
	}
	wg.Wait()
	require.EqualValues(t, 100, counters.Snapshot().Requests["revoke"])
}

func TestCallbackRefused(t *testing.T) {
	s := &service{handle: func(r *Request) {
		a, err := r.Peer().Call(context.Background(), &Frame{Op: ionpb.Op_REVOKE})
		if err == nil {
			err = a.Err()
		}
		r.Fail(err)
	}}
	c := dial(t, serve(t, s, ServerOptions{}), Options{})
	reply, err := c.Call(t.Context(), &Frame{Op: ionpb.Op_OPEN})
	require.NoError(t, err)
	require.Equal(t, syscall.EOPNOTSUPP, reply.Errno)
}

// TestCallbackBroken: the stream ends while the mount does not answer.
func TestCallbackBroken(t *testing.T) {
	asked, failed := make(chan struct{}), make(chan error, 1)
	s := &service{handle: func(r *Request) {
		_, err := r.Peer().Call(context.Background(), &Frame{Op: ionpb.Op_PUBLISH})
		failed <- err
		r.Fail(err)
		_, err = r.Peer().Call(context.Background(), &Frame{Op: ionpb.Op_PUBLISH})
		failed <- err
	}}
	c := dial(t, serve(t, s, ServerOptions{}), Options{Callback: func(ctx context.Context, _ *Frame) *Frame {
		close(asked)
		<-ctx.Done()
		return new(Frame)
	}})
	go func() { _, _ = c.Call(context.Background(), &Frame{Op: ionpb.Op_OPEN}) }()
	<-asked
	require.NoError(t, c.Close())
	require.ErrorIs(t, <-failed, ErrBroken)
	require.ErrorIs(t, <-failed, ErrBroken)
}

// TestCallbackCancelled: the caller goes away; the late answer harms nobody.
func TestCallbackCancelled(t *testing.T) {
	asked, goOn := make(chan struct{}), make(chan struct{})
	s := &service{handle: func(r *Request) {
		ctx, cancel := context.WithCancelCause(context.Background())
		go func() {
			<-asked
			cancel(errors.New("enough"))
		}()
		_, err := r.Peer().Call(ctx, &Frame{Op: ionpb.Op_STABLE})
		close(goOn)
		r.Fail(err)
	}}
	c := dial(t, serve(t, s, ServerOptions{}), Options{Callback: func(context.Context, *Frame) *Frame {
		close(asked)
		<-goOn
		return new(Frame)
	}})
	reply, err := c.Call(t.Context(), &Frame{Op: ionpb.Op_OPEN})
	require.NoError(t, err)
	require.ErrorContains(t, reply.Err(), "enough")
}
