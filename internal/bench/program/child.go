package program

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"time"
)

// Child is a process that works for a benchmark: its program in some role, or zoidfs.
type Child struct {
	Cmd *exec.Cmd
	In  io.WriteCloser
	Err *bytes.Buffer // what it says besides

	out *bufio.Reader
}

// Start starts a program, with one more variable in its environment.
func Start(env string, name string, args ...string) (*Child, error) {
	c := &Child{Cmd: exec.Command(name, args...), Err: new(bytes.Buffer)}
	c.Cmd.Env = append(os.Environ(), env)
	c.Cmd.Stderr = c.Err
	in, err := c.Cmd.StdinPipe()
	if err != nil {
		return nil, err
	}
	out, err := c.Cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	c.In, c.out = in, bufio.NewReader(out)
	if err := c.Cmd.Start(); err != nil {
		return nil, err
	}
	return c, nil
}

// Self starts the running program again, in the role that the variable says.
func Self(env string, args ...string) (*Child, error) {
	exe, err := os.Executable()
	if err != nil {
		return nil, err
	}
	return Start(env, exe, args...)
}

// Line reads what the process says next.
func (c *Child) Line() (string, error) {
	s, err := c.out.ReadString('\n')
	if err != nil {
		_ = c.Cmd.Process.Kill()
		_ = c.Cmd.Wait()
		return "", fmt.Errorf("%s: %w: %s", strings.Join(c.Cmd.Args, " "), err, strings.TrimSpace(c.Err.String()))
	}
	return strings.TrimSpace(s), nil
}

// End asks the process to stop and makes it, if it does not.
func (c *Child) End() error {
	_ = c.Cmd.Process.Signal(os.Interrupt)
	kill := time.AfterFunc(10*time.Second, func() { _ = c.Cmd.Process.Kill() })
	defer kill.Stop()
	return c.Cmd.Wait()
}
