//go:build race || zoidpoison

package cache

// poisoned has the memory of freed blocks overwritten, so that a view that is
// used after its release shows.
const poisoned = true
