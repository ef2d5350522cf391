//go:build linux && amd64

package main

import (
	"encoding/json"
	"fmt"
	"os"

	"github.com/confine-dev/confine/test/vm/job"
)

// readJob reads what to do.
func readJob() (job.Job, error) {
	var j job.Job
	data, err := os.ReadFile(job.File)
	if err == nil {
		err = json.Unmarshal(data, &j)
	}
	if err == nil && len(j.Args) == 0 {
		err = fmt.Errorf("%s names no program", job.File)
	}
	return j, err
}
