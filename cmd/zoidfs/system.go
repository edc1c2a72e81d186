package main

import (
	"fmt"

	"github.com/zoidfs/zoidfs/cmd/zoidfs/internal/cluster"
	"github.com/zoidfs/zoidfs/cmd/zoidfs/internal/local"
)

// loadSystem returns the system in dir, up or down.
func loadSystem(dir string) (cluster.Dir, *cluster.File, error) {
	d, err := cluster.NewDir(dir)
	if err != nil {
		return d, nil, err
	}
	f, err := d.Load()
	return d, f, err
}

// runningSystem returns the system in dir, of which something must run.
func runningSystem(dir string) (cluster.Dir, *cluster.File, error) {
	d, f, err := loadSystem(dir)
	if err == nil && local.Running(f) == 0 {
		err = fmt.Errorf("the system in %s is down, start it with: zoidfs up --dir %s", d, d)
	}
	return d, f, err
}
