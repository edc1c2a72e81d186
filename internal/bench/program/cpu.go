package program

import (
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// CPUOf returns the CPU time that processes have used, those of their threads
// that have ended included. Processes that are gone count as zero.
func CPUOf(pids []int) time.Duration {
	var sum time.Duration
	for _, pid := range pids {
		// The CPU-time clock of a process, as clock_getcpuclockid(3) makes it.
		var ts unix.Timespec
		if err := unix.ClockGettime(int32(^pid<<3|2), &ts); err == nil {
			sum += time.Duration(ts.Nano())
		}
	}
	return sum
}

// OwnCPU returns the CPU time of this process.
func OwnCPU() time.Duration {
	var ru syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &ru); err != nil {
		return 0
	}
	return time.Duration(ru.Utime.Nano() + ru.Stime.Nano())
}
