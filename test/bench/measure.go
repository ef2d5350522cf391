package main

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/confine-dev/confine/pkg/artifact"
	client "github.com/confine-dev/confine/pkg/artifact/registry"
	"github.com/confine-dev/confine/pkg/node/agent"
	"github.com/confine-dev/confine/pkg/node/status"
	"github.com/confine-dev/confine/pkg/profile"
	"github.com/confine-dev/confine/pkg/profile/kinds"
	"github.com/confine-dev/confine/pkg/profile/seccomp/compile"
	"github.com/confine-dev/confine/pkg/profile/seccomp/host"
	"github.com/confine-dev/confine/test/procfs"
)

// confine is (a): the agent's own code, from manifests that appear until all
// of them is installed, within this process as the floor is.
func (s *site) confine(ctx context.Context, n int) (time.Duration, error) {
	dir, err := s.folder()
	if err != nil {
		return 0, err
	}
	seccomp, err := host.New(host.Options{Root: filepath.Join(dir, "root", "seccomp")})
	if err != nil {
		return 0, err
	}
	remote, err := client.New(client.Options{})
	if err != nil {
		return 0, err
	}
	defer remote.CloseIdleConnections()
	a, err := agent.New(agent.Options{
		Root: filepath.Join(dir, "root"),
		Source: agent.Folders{
			Manifests: filepath.Join(dir, "manifests"), TrustDir: filepath.Join(dir, "trust"),
			Puller: artifact.NewPuller(artifact.PullerOptions{Kinds: kinds.All(compile.Resolver())}),
		},
		Hosts: []profile.Host{seccomp}, Remote: remote,
	})
	if err != nil {
		return 0, err
	}
	// An agent that runs has its folders: they are made once, not an artifact.
	if _, err := a.Once(ctx); err != nil {
		return 0, errors.Join(err, a.Close())
	}
	if err := s.want(dir, n); err != nil {
		return 0, errors.Join(err, a.Close())
	}
	start := time.Now()
	report, err := a.Once(ctx)
	took := time.Since(start)
	if err := errors.Join(err, a.Close()); err != nil {
		return 0, err
	}
	return took, allInstalled(report, n)
}

func allInstalled(report status.Report, n int) error {
	if len(report.Profiles) != n {
		return fmt.Errorf("%d of %d profiles are reported", len(report.Profiles), n)
	}
	for _, p := range report.Profiles {
		if !p.AsWanted() {
			return fmt.Errorf("%s is not installed: %+v", p.Owner, p.Conditions)
		}
	}
	return nil
}

// floor is (b): the same HTTP requests over one connection, one ECDSA P-256
// verification, and the payload written, flushed and renamed.
func (s *site) floor(ctx context.Context, n int) (time.Duration, error) {
	dir, err := s.folder()
	if err != nil {
		return 0, err
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return 0, err
	}
	sum := sha256.Sum256([]byte("floor"))
	signature, err := ecdsa.SignASN1(rand.Reader, key, sum[:])
	if err != nil {
		return 0, err
	}
	transport := &http.Transport{MaxConnsPerHost: 1}
	defer transport.CloseIdleConnections()
	over := &http.Client{Transport: transport}
	start := time.Now()
	for i, a := range s.artifacts[:n] {
		base := "http://" + s.host + "/v2/" + a.ref.Repository.Path
		var payload []byte
		for _, path := range []string{
			"/manifests/" + a.ref.Digest.String(), "/referrers/" + a.ref.Digest.String(),
			"/manifests/" + a.signature.String(), "/blobs/" + a.bundle.String(), "/blobs/" + a.layer.String(),
		} {
			if payload, err = get(ctx, over, base+path); err != nil {
				return 0, err
			}
		}
		if !ecdsa.VerifyASN1(&key.PublicKey, sum[:], signature) || !bytes.Equal(payload, a.payload) {
			return 0, errors.New("the floor got something wrong")
		}
		if err := install(filepath.Join(dir, strconv.Itoa(i)), payload); err != nil {
			return 0, err
		}
	}
	return time.Since(start), nil
}

func get(ctx context.Context, over *http.Client, url string) ([]byte, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return nil, err
	}
	resp, err := over.Do(req)
	if err != nil {
		return nil, err
	}
	defer func() { _ = resp.Body.Close() }()
	if resp.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("%s: %s", url, resp.Status)
	}
	return io.ReadAll(resp.Body)
}

func install(name string, data []byte) error {
	f, err := os.Create(name + ".tmp")
	if err != nil {
		return err
	}
	_, err = f.Write(data)
	if err := errors.Join(err, f.Sync(), f.Close()); err != nil {
		return err
	}
	return os.Rename(name+".tmp", name)
}

// script is (c): what a user would write. It returns the time per artifact.
func script(ctx context.Context, s *site, o options) (time.Duration, error) {
	if o.cosign == "" || o.oras == "" {
		return 0, nil
	}
	n := min(o.script, len(s.artifacts))
	start := time.Now()
	for i, a := range s.artifacts[:n] {
		pinned := a.ref.Repository.Pinned(a.ref.Digest).String()
		dir := filepath.Join(s.dir, "script", strconv.Itoa(i))
		for _, command := range [][]string{
			{o.cosign, "verify", "--key", filepath.Join(s.dir, "cosign.pub"), "--insecure-ignore-tlog", "--allow-http-registry", pinned},
			{o.oras, "pull", "--plain-http", "-o", dir, pinned},
			{"install", "-D", "-m", "0644", filepath.Join(dir, "nginx.json"), filepath.Join(s.dir, "script", "installed", strconv.Itoa(i)+".json")},
		} {
			cmd := exec.CommandContext(ctx, command[0], command[1:]...)
			cmd.Env = append(os.Environ(), "HOME="+s.dir)
			if out, err := cmd.CombinedOutput(); err != nil {
				return 0, fmt.Errorf("%s: %w: %s", strings.Join(command, " "), err, out)
			}
		}
	}
	return time.Since(start) / time.Duration(n), nil
}

// requests counts what one cold artifact costs, with both kinds of registry,
// and after a restart.
func requests(ctx context.Context, s *site) error {
	fmt.Println()
	without, err := newRegistry(s.dir, false)
	if err != nil {
		return err
	}
	defer without.close()
	if err := without.fill(ctx, 1); err != nil {
		return err
	}
	for _, c := range []struct {
		what string
		site *site
	}{{"with the referrers API", s}, {"without it", without}} {
		c.site.requests.Store(0)
		if _, err := c.site.confine(ctx, 1); err != nil {
			return err
		}
		fmt.Printf("requests for one cold artifact, registry %s: %d\n", c.what, c.site.requests.Load())
	}
	return nil
}

// memory runs the real agent: its peak while it installs all artifacts, what
// it holds when it has nothing to do, and what a restart asks of the registry.
func memory(ctx context.Context, s *site, o options) error {
	for _, n := range []int{500, 1000} {
		if n > o.largest {
			continue
		}
		dir, err := s.folder()
		if err == nil {
			err = s.want(dir, n)
		}
		if err != nil {
			return err
		}
		for _, start := range []string{"cold", "restarted"} {
			s.requests.Store(0)
			m, err := watchAgent(ctx, o.bin, dir, n)
			if err != nil {
				return err
			}
			fmt.Printf("agent %-9s with %4d profiles: peak %5.1f MiB, idle %5.1f MiB, all installed after %s, %d requests\n",
				start, n, m.peak, m.idle, m.took.Round(time.Millisecond), s.requests.Load())
		}
	}
	return nil
}

type agentMemory struct {
	peak, idle float64
	took       time.Duration
}

func watchAgent(ctx context.Context, bin, dir string, n int) (m agentMemory, err error) {
	root := filepath.Join(dir, "root")
	if err := os.Remove(filepath.Join(root, status.FileName)); err != nil && !errors.Is(err, os.ErrNotExist) {
		return m, err
	}
	cmd := exec.CommandContext(ctx, filepath.Join(bin, "confine-agent"),
		"--manifests", filepath.Join(dir, "manifests"), "--trust", filepath.Join(dir, "trust"), "--root", root)
	logged, err := os.Create(filepath.Join(dir, "agent.log"))
	if err != nil {
		return m, err
	}
	cmd.Stderr = logged
	start := time.Now()
	if err := cmd.Start(); err != nil {
		return m, err
	}
	defer func() {
		err = errors.Join(err, cmd.Process.Signal(syscall.SIGTERM), cmd.Wait(), logged.Close())
	}()
	if err := until(ctx, func() bool {
		report, err := status.Read(root)
		return err == nil && allInstalled(report, n) == nil
	}); err != nil {
		return m, err
	}
	m.took = time.Since(start)
	if m.idle, err = settled(ctx, cmd.Process.Pid); err != nil {
		return m, err
	}
	m.peak, err = procfs.Peak(cmd.Process.Pid)
	return m, err
}

func until(ctx context.Context, done func() bool) error {
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for !done() {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-tick.C:
		}
	}
	return nil
}

// settled returns the resident memory once it has not changed for a second.
func settled(ctx context.Context, pid int) (float64, error) {
	last, since := 0.0, time.Now()
	var failed error
	err := until(ctx, func() bool {
		now, err := procfs.Resident(pid)
		if err != nil {
			failed = err
			return true
		}
		if diff := now - last; diff > 0.25 || diff < -0.25 {
			last, since = now, time.Now()
		}
		return time.Since(since) > 2*time.Second
	})
	return last, errors.Join(err, failed)
}
