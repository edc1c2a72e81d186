// Package proc names, starts, signals and awaits the processes of a system
// on this machine.
//
// A process is known by its pid together with the time at which it started,
// so that a pid that the kernel has given to somebody else is never signalled.
// It knows nothing of what the processes do. Safe for concurrent use.
// Sources: proc_pid_stat(5), pidfd_open(2).
package proc

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// pollInterval bounds how late Wait notices that its context is done.
const pollInterval = 50 * time.Millisecond

// ID names one process for all time. The zero value names none.
type ID struct {
	PID   int    `json:"pid"`
	Start string `json:"start,omitempty"` // boot id and start time in clock ticks; opaque
}

// Of returns the ID of the process that has pid now. The error is ESRCH when
// there is none, or when it has ended and only waits to be reaped.
func Of(pid int) (ID, error) {
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return ID{}, fmt.Errorf("process %d: %w", pid, syscall.ESRCH)
	}
	// The second field is the command in parentheses and may hold anything.
	close := bytes.LastIndexByte(stat, ')')
	fields := strings.Fields(string(stat[close+1:]))
	if close < 0 || len(fields) < 20 {
		return ID{}, fmt.Errorf("process %d: unreadable /proc stat", pid)
	}
	if fields[0] == "Z" || fields[0] == "X" {
		return ID{}, fmt.Errorf("process %d: %w", pid, syscall.ESRCH)
	}
	boot, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		return ID{}, err
	}
	id, _, _ := strings.Cut(string(boot), "-")
	return ID{PID: pid, Start: id + "-" + fields[19]}, nil
}

// Alive reports whether the very process that id names is running.
func (id ID) Alive() bool {
	if id.PID <= 0 {
		return false
	}
	now, err := Of(id.PID)
	return err == nil && now == id
}

// Signal sends sig to the process. It returns ESRCH when the process is gone,
// whoever has its pid now.
func (id ID) Signal(sig syscall.Signal) error {
	fd, err := id.open()
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	return unix.PidfdSendSignal(fd, sig, nil, 0)
}

// Wait returns nil once the process is gone, or the context's error.
func (id ID) Wait(ctx context.Context) error {
	fd, err := id.open()
	if errors.Is(err, syscall.ESRCH) {
		return nil
	}
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	poll := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}
	for {
		if err := ctx.Err(); err != nil {
			return err
		}
		n, err := unix.Poll(poll, int(pollInterval/time.Millisecond))
		if err != nil && !errors.Is(err, syscall.EINTR) {
			return err
		}
		if n > 0 {
			return nil
		}
	}
}

// Stop sends SIGTERM and waits for the end. When ctx is done first, it kills
// the process and returns the context's error. A process that is gone already
// is no error.
func (id ID) Stop(ctx context.Context) error {
	err := id.Signal(syscall.SIGTERM)
	if errors.Is(err, syscall.ESRCH) {
		return nil
	}
	if err != nil {
		return err
	}
	if err = id.Wait(ctx); err == nil {
		return nil
	}
	if killErr := id.Signal(syscall.SIGKILL); killErr != nil && !errors.Is(killErr, syscall.ESRCH) {
		return errors.Join(err, killErr)
	}
	// The kernel ends a killed process in its own time; there is no more to do
	// than to give it a moment.
	grace, cancel := context.WithTimeout(context.WithoutCancel(ctx), 5*time.Second)
	defer cancel()
	return errors.Join(err, id.Wait(grace))
}

// open returns a pidfd that is certain to be of the process that id names: it
// was opened before the start time was compared, so the pid cannot have been
// reused in between.
func (id ID) open() (int, error) {
	if id.PID <= 0 {
		return -1, syscall.ESRCH
	}
	fd, err := unix.PidfdOpen(id.PID, 0)
	if err != nil {
		return -1, err
	}
	if !id.Alive() {
		unix.Close(fd)
		return -1, syscall.ESRCH
	}
	return fd, nil
}

// String gives the pid in words.
func (id ID) String() string {
	if id.PID <= 0 {
		return "no process"
	}
	return "pid " + strconv.Itoa(id.PID)
}
