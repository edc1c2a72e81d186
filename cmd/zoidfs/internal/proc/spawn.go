package proc

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"sync"
	"syscall"
	"time"
)

// ReadyFD is the descriptor on which a process that Start started tells that
// it serves, or why it does not.
const ReadyFD = 3

// maxReport bounds the one line that a starting process may report.
const maxReport = 4 << 10

// Child is a process that Start started in a session of its own.
type Child struct {
	ID    ID
	cmd   *exec.Cmd
	ready *os.File
}

// Start runs this same executable with args, detached from the terminal and
// with / as its working directory, so that it keeps nothing busy. Its output is appended to the file log, or dropped when log is empty. The
// process is expected to report through a Notifier on ReadyFD.
func Start(log string, args ...string) (*Child, error) {
	out, err := openLog(log)
	if err != nil {
		return nil, err
	}
	defer out.Close()
	ready, report, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	defer report.Close()
	cmd := &exec.Cmd{
		Path:        "/proc/self/exe", // right even when the file was replaced since
		Args:        append([]string{"zoidfs"}, args...),
		Dir:         "/",
		Stdout:      out,
		Stderr:      out,
		ExtraFiles:  []*os.File{report},
		SysProcAttr: &syscall.SysProcAttr{Setsid: true},
	}
	if err := cmd.Start(); err != nil {
		ready.Close()
		return nil, err
	}
	id, err := Of(cmd.Process.Pid)
	if err != nil { // it ended at once; Ready tells why
		id = ID{PID: cmd.Process.Pid}
	}
	return &Child{ID: id, cmd: cmd, ready: ready}, nil
}

func openLog(name string) (*os.File, error) {
	if name == "" {
		return os.OpenFile(os.DevNull, os.O_WRONLY, 0)
	}
	return os.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o644)
}

// ReportError is why a process does not serve, in its own words.
type ReportError struct{ Reason string }

// Error returns the words.
func (e *ReportError) Error() string { return e.Reason }

// Ready waits until the process reports that it serves. It returns the reason
// that the process gave when it does not, a *ReportError, and how it ended when it gave none.
// After the context's error the process may still be running. Call Ready once.
func (c *Child) Ready(ctx context.Context) error {
	defer c.ready.Close()
	stop := context.AfterFunc(ctx, func() { _ = c.ready.SetReadDeadline(time.Unix(1, 0)) })
	defer stop()
	line, err := readLine(c.ready)
	if ctx.Err() != nil {
		return ctx.Err()
	}
	if line == "ready" {
		return nil
	}
	if msg, ok := strings.CutPrefix(line, failPrefix); ok {
		_ = c.cmd.Wait() // the reason is in msg; the status adds nothing
		return &ReportError{msg}
	}
	if err != nil && !errors.Is(err, io.EOF) {
		return err
	}
	err = c.cmd.Wait()
	if err == nil {
		err = errors.New("exit status 0")
	}
	return fmt.Errorf("ended before it was ready: %w", err)
}

// failPrefix starts the report of a failure.
const failPrefix = "error: "

func readLine(r io.Reader) (string, error) {
	line, err := bufio.NewReader(io.LimitReader(r, maxReport)).ReadString('\n')
	return strings.TrimSpace(line), err
}

// ReadReport returns the reason that a Notifier on the other end of the pipe r
// gave, or nothing. Later reports may be lost.
func ReadReport(r io.Reader) string {
	line, _ := readLine(r) // a failure reads as no report
	if msg, ok := strings.CutPrefix(line, failPrefix); ok {
		return msg
	}
	return ""
}

// Notifier is the starting process's end of the pipe. The nil Notifier drops
// every report, for a process that nobody waits for. Only the first report
// counts.
type Notifier struct {
	mu sync.Mutex
	w  *os.File // guarded by mu; nil after the first report
}

// NewNotifier reports on the inherited descriptor fd, or nowhere when fd is
// negative.
func NewNotifier(fd int) (*Notifier, error) {
	if fd < 0 {
		return nil, nil
	}
	var st syscall.Stat_t
	if err := syscall.Fstat(fd, &st); err != nil || st.Mode&syscall.S_IFMT != syscall.S_IFIFO {
		return nil, fmt.Errorf("descriptor %d is not an inherited pipe", fd)
	}
	syscall.CloseOnExec(fd)
	return &Notifier{w: os.NewFile(uintptr(fd), "ready")}, nil
}

// Ready reports that the process serves.
func (n *Notifier) Ready() { n.report("ready\n") }

// Fail reports why the process does not serve, as one line.
func (n *Notifier) Fail(err error) {
	n.report(failPrefix + strings.Join(strings.Fields(err.Error()), " ") + "\n")
}

func (n *Notifier) report(line string) {
	if n == nil {
		return
	}
	n.mu.Lock()
	w := n.w
	n.w = nil
	n.mu.Unlock()
	if w == nil {
		return
	}
	if len(line) > maxReport {
		line = line[:maxReport-1] + "\n"
	}
	_, _ = w.WriteString(line) // whoever started us may be gone: nobody to tell
	w.Close()
}
