//go:build !race && !zoidpoison

package buf

const poisoned = false
