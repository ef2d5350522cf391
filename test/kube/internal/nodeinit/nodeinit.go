//go:build linux

// Package nodeinit is process 1 of a node of the test cluster: it turns fresh
// namespaces into a node, starts containerd and kubelet, and reaps what they
// leave. It is a program of its own, small and without Kubernetes in it.
package nodeinit

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"slices"
	"strconv"
	"syscall"
	"time"
)

const (
	socket       = "/run/containerd/containerd.sock"
	startTimeout = time.Minute
	pollInterval = 50 * time.Millisecond
)

// Config says what to do. All paths are absolute.
type Config struct {
	Hostname string
	// Binds are folders that the node sees elsewhere: target to source.
	Binds map[string]string
	// Scratch is a folder for the stand-ins of kernel settings.
	Scratch string
	// Path is the folder with the programs; Logs where their output goes.
	Path, Logs string
	// Images is a folder with archives to import at each boot.
	Images string
	// Containerd and Kubelet are the arguments of the two.
	Containerd, Kubelet []string
}

// sysctls are settings of the whole kernel that the kubelet wants so. It finds
// them so, and the machine keeps its own.
func sysctls() map[string]int {
	return map[string]int{
		"vm/overcommit_memory": 1, "vm/panic_on_oom": 0, "kernel/panic": 10, "kernel/panic_on_oops": 1,
		"kernel/keys/root_maxkeys": 1_000_000, "kernel/keys/root_maxbytes": 25_000_000,
	}
}

// ImportArgs returns the arguments for ctr to import an archive for the kubelet.
func ImportArgs(archive string) []string {
	return []string{"--namespace", "k8s.io", "images", "import", "--local", archive}
}

// Main runs the node that the file describes until it is killed, or returns
// what went wrong.
func Main(file string) error {
	if os.Getpid() != 1 {
		return errors.New("this is for process 1 of a PID namespace")
	}
	data, err := os.ReadFile(file)
	if err != nil {
		return err
	}
	var c Config
	if err := json.Unmarshal(data, &c); err != nil {
		return fmt.Errorf("reading %s: %w", file, err)
	}
	if err := c.mount(); err != nil {
		return err
	}
	if err := syscall.Sethostname([]byte(c.Hostname)); err != nil {
		return fmt.Errorf("setting the host name: %w", err)
	}
	if err := os.Setenv("PATH", c.Path+":/usr/sbin:/usr/bin:/sbin:/bin"); err != nil {
		return err
	}
	if err := c.start("containerd", c.Containerd); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(context.Background(), startTimeout)
	defer cancel()
	if err := c.importImages(ctx); err != nil {
		return err
	}
	if err := c.start("kubelet", c.Kubelet); err != nil {
		return err
	}
	reap()
	return nil
}

func (c Config) mount() error {
	// What pods mount shows on the node, and nowhere else: unshare(1) made the
	// mounts private first.
	if err := syscall.Mount("", "/", "", syscall.MS_REC|syscall.MS_SHARED, ""); err != nil {
		return fmt.Errorf("making mounts shared: %w", err)
	}
	if err := c.fakeSysctls(); err != nil {
		return err
	}
	for target, source := range c.Binds {
		if err := syscall.Mount(source, target, "", syscall.MS_BIND, ""); err != nil {
			return fmt.Errorf("mounting %s on %s: %w", source, target, err)
		}
		if err := syscall.Mount("", target, "", syscall.MS_SHARED, ""); err != nil {
			return fmt.Errorf("sharing %s: %w", target, err)
		}
	}
	if err := syscall.Mount("tmpfs", "/run", "tmpfs", 0, "mode=755"); err != nil {
		return fmt.Errorf("mounting /run: %w", err)
	}
	return nil
}

func (c Config) fakeSysctls() error {
	if err := os.MkdirAll(c.Scratch, 0o755); err != nil {
		return err
	}
	for name, value := range sysctls() {
		setting := filepath.Join("/proc/sys", name)
		if _, err := os.Stat(setting); errors.Is(err, os.ErrNotExist) {
			continue
		}
		fake := filepath.Join(c.Scratch, filepath.Base(name))
		if err := os.WriteFile(fake, []byte(strconv.Itoa(value)+"\n"), 0o644); err != nil {
			return err
		}
		if err := syscall.Mount(fake, setting, "", syscall.MS_BIND, ""); err != nil {
			return fmt.Errorf("standing in for %s: %w", setting, err)
		}
	}
	return nil
}

// start starts a program whose end nobody waits for but reap.
func (c Config) start(name string, args []string) error {
	log, err := os.OpenFile(filepath.Join(c.Logs, name+".log"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	file := filepath.Join(c.Path, name)
	null, err := os.Open(os.DevNull)
	if err != nil {
		return err
	}
	_, err = os.StartProcess(file, append([]string{file}, args...), &os.ProcAttr{Files: []*os.File{null, log, log}, Env: os.Environ()})
	return errors.Join(err, log.Close(), null.Close())
}

// importImages waits until containerd takes commands, and imports.
func (c Config) importImages(ctx context.Context) error {
	for {
		out, err := exec.CommandContext(ctx, "ctr", "version").CombinedOutput()
		if err == nil {
			break
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("containerd does not answer at %s: %w\n%s", socket, err, out)
		case <-time.After(pollInterval):
		}
	}
	archives, err := filepath.Glob(filepath.Join(c.Images, "*.tar"))
	if err != nil {
		return err
	}
	slices.Sort(archives)
	for _, archive := range archives {
		if out, err := exec.CommandContext(ctx, "ctr", ImportArgs(archive)...).CombinedOutput(); err != nil {
			return fmt.Errorf("importing %s: %w\n%s", archive, err, out)
		}
	}
	return nil
}

// reap waits for children as long as there are any. Orphans become children of
// process 1 and stay zombies if nobody waits for them.
func reap() {
	// A node is killed, never asked to end.
	signal.Ignore(syscall.SIGTERM, syscall.SIGINT, syscall.SIGHUP)
	for {
		if _, err := syscall.Wait4(-1, nil, 0, nil); err != nil && !errors.Is(err, syscall.EINTR) {
			return
		}
	}
}
