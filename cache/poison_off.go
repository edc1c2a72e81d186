//go:build !race && !zoidpoison

package cache

const poisoned = false
