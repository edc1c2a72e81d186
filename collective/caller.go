package collective

import "context"

// Caller is on whose behalf something is asked for.
type Caller struct {
	// Member is for merging: zero for a process that is no rank of a job, as a
	// helper that a rank has started.
	Member
	// Account is the job whose account it goes on; zero: none is known.
	Account JobID
}

// CallerKey is the key of a context's value that is the Caller.
type CallerKey struct{}

// CallerOf returns on whose behalf ctx is, zero if it does not tell.
func CallerOf(ctx context.Context) Caller {
	c, _ := ctx.Value(CallerKey{}).(Caller)
	return c
}

// WithCaller returns ctx on behalf of c.
func WithCaller(ctx context.Context, c Caller) context.Context {
	return context.WithValue(ctx, CallerKey{}, c)
}
