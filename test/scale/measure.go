package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
	"k8s.io/client-go/kubernetes"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/confine-dev/confine/api/v1alpha1"
	"github.com/confine-dev/confine/test/procfs"
)

// batch is some profiles that change together.
type batch struct {
	name     string
	artifact int
	profiles int
	wave     string
}

// measure changes the profiles of a batch, waits until every rollout is
// complete, and prints one line.
func (s *site) measure(ctx context.Context, b batch) error {
	before, err := s.writes(ctx)
	if err != nil {
		return err
	}
	s.fleet.take()
	s.requests.Store(0)
	start := time.Now()
	if err := inParallel(b.profiles, func(i int) error { return s.want(ctx, b, i) }); err != nil {
		return err
	}
	if err := s.until(ctx, "the rollouts", func() (bool, error) { return s.rolledOut(ctx, b) }); err != nil {
		return err
	}
	after, err := s.writes(ctx)
	if err != nil {
		return err
	}
	times := s.fleet.take()
	if want := b.profiles * s.nodes; len(times) != want {
		return fmt.Errorf("%d installs, want %d", len(times), want)
	}
	slices.SortFunc(times, time.Time.Compare)
	at := func(part int) time.Duration {
		return times[min(len(times)-1, len(times)*part/100)].Sub(start).Round(100 * time.Millisecond)
	}
	nodes := float64(s.nodes)
	fmt.Printf("%-34s %10.2f %10.2f %10s %10s %10s %9d %9.0f\n", b.name,
		(after.spec-before.spec)/nodes, (after.status-before.status)/nodes,
		at(50), at(99), at(100), s.requests.Load(), after.all-before.all)
	return nil
}

// want makes or changes one SecurityProfile.
func (s *site) want(ctx context.Context, b batch, i int) error {
	wave, patience := intstr.FromString(b.wave), int32(3600) // one machine is slower than a fleet
	wanted := &v1alpha1.SecurityProfile{ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: fmt.Sprintf("p%d", i)}}
	wanted.Spec = v1alpha1.SecurityProfileSpec{
		Artifact: s.artifacts[b.artifact][i].String(), Rollout: &v1alpha1.Rollout{MaxConcurrent: &wave, ProgressDeadlineSeconds: &patience},
	}
	err := s.api.Create(ctx, wanted)
	if !apierrors.IsAlreadyExists(err) {
		return err
	}
	patch, err := json.Marshal(map[string]any{"spec": wanted.Spec})
	if err != nil {
		return err
	}
	return s.api.Patch(ctx, wanted, client.RawPatch("application/merge-patch+json", patch))
}

// rolledOut reports whether each profile of the batch is in force everywhere.
func (s *site) rolledOut(ctx context.Context, b batch) (bool, error) {
	var list v1alpha1.SecurityProfileList
	if err := s.api.List(ctx, &list); err != nil {
		return false, err
	}
	done := 0
	for _, p := range list.Items {
		if p.Status == nil || p.Status.Nodes == nil || p.Status.Rollout == nil || p.Status.ObservedGeneration != p.Generation {
			continue
		}
		if p.Status.Rollout.Stopped != "" {
			return false, fmt.Errorf("%w: %s: %s: %+v", errStopped, p.Name, p.Status.Rollout.Stopped, p.Status.Failures)
		}
		if p.Status.Rollout.EffectiveDigest != "" && strings.HasSuffix(p.Spec.Artifact, p.Status.Rollout.EffectiveDigest) && int(p.Status.Nodes.Ready) == s.nodes {
			done++
		}
	}
	return done == len(list.Items) && done >= b.profiles, nil
}

// written counts what the API server was asked to write so far.
type written struct{ all, spec, status float64 }

// writes reads the API server's own count of requests that write our resources.
func (s *site) writes(ctx context.Context) (written, error) {
	api, err := kubernetes.NewForConfig(s.env.Config())
	if err != nil {
		return written{}, err
	}
	raw, err := api.RESTClient().Get().AbsPath("/metrics").DoRaw(ctx)
	if err != nil {
		return written{}, err
	}
	var w written
	lines := bufio.NewScanner(bytes.NewReader(raw))
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		labels, value, ok := strings.Cut(strings.TrimPrefix(lines.Text(), "apiserver_request_total"), "} ")
		if !ok || !strings.HasPrefix(lines.Text(), "apiserver_request_total{") || !strings.Contains(labels, `group="confine.dev"`) || !isWrite(labels) {
			continue
		}
		n, err := strconv.ParseFloat(value, 64)
		if err != nil {
			return written{}, err
		}
		w.all += n
		switch {
		case !strings.Contains(labels, `resource="profilenodes"`):
		case strings.Contains(labels, `subresource="status"`):
			w.status += n
		default:
			w.spec += n
		}
	}
	return w, lines.Err()
}

func isWrite(labels string) bool {
	for _, verb := range []string{"POST", "PUT", "PATCH", "APPLY", "DELETE"} {
		if strings.Contains(labels, `verb="`+verb+`"`) {
			return true
		}
	}
	return false
}

// summary prints what the fleet holds at its end.
func (s *site) summary(ctx context.Context) error {
	api, err := kubernetes.NewForConfig(s.env.Config())
	if err != nil {
		return err
	}
	fmt.Println()
	objects, bytesInAll := 0, 0
	for _, resource := range []string{"securityprofiles", "trustpolicies", "profilenodes"} {
		n, size, err := stored(ctx, api, resource)
		if err != nil {
			return err
		}
		objects, bytesInAll = objects+n, bytesInAll+size
		fmt.Printf("%-18s %6d objects %10d bytes as JSON, as etcd holds them\n", resource, n, size)
		if resource == "profilenodes" {
			fmt.Printf("%-18s %6d entries %10.0f bytes an entry, assignment and report together\n", "", n*s.profiles, float64(size)/float64(n*s.profiles))
		}
	}
	fmt.Printf("%-18s %6d objects %10d bytes\n\n", "in all", objects, bytesInAll)
	pid := s.controller.Process.Pid
	peak, err := procfs.Peak(pid)
	now, err2 := procfs.Resident(pid)
	cpu, err3 := procfs.ProcessorTime(pid)
	if err := errors.Join(err, err2, err3); err != nil {
		return err
	}
	fmt.Printf("controller: %.1f MiB at most, %.1f MiB at the end, %s of processor time in %s\n", peak, now, cpu.Round(10*time.Millisecond), time.Since(s.began).Round(time.Second))
	return nil
}

// stored counts the objects of a resource and the bytes of their JSON, which is
// how custom resources are stored.
func stored(ctx context.Context, api kubernetes.Interface, resource string) (objects, size int, err error) {
	next := ""
	for {
		raw, err := api.Discovery().RESTClient().Get().AbsPath("/apis", v1alpha1.GroupName, "v1alpha1", resource).
			Param("limit", "200").Param("continue", next).DoRaw(ctx)
		if err != nil {
			return 0, 0, err
		}
		var page struct {
			Metadata metav1.ListMeta
			Items    []json.RawMessage
		}
		if err := json.Unmarshal(raw, &page); err != nil {
			return 0, 0, err
		}
		objects += len(page.Items)
		for _, item := range page.Items {
			size += len(item)
		}
		if next = page.Metadata.Continue; next == "" {
			return objects, size, nil
		}
	}
}

// inParallel does n things, 16 at a time.
func inParallel(n int, do func(i int) error) error {
	var all sync.WaitGroup
	errs := make([]error, n)
	places := make(chan struct{}, 16)
	for i := range n {
		places <- struct{}{}
		all.Go(func() {
			errs[i] = do(i)
			<-places
		})
	}
	all.Wait()
	return errors.Join(errs...)
}
