package cluster

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"math/rand/v2"
	"slices"
	"sync"
	"time"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/util/json"

	"github.com/confine-dev/confine/api/v1alpha1"
	"github.com/confine-dev/confine/pkg/artifact/trust"
	"github.com/confine-dev/confine/pkg/durable"
	"github.com/confine-dev/confine/pkg/node/agent"
	"github.com/confine-dev/confine/pkg/node/intent"
	"github.com/confine-dev/confine/pkg/node/status"
	"github.com/confine-dev/confine/pkg/reason"
)

// Options of a Source. Client, Node, Root and Puller are required.
type Options struct {
	// Client speaks to the API server.
	Client *Client
	// Node is the name of the node, and so of its ProfileNode.
	Node string
	// Root is the folder of the agent's state. The Source keeps a folder of its
	// own there.
	Root string
	// Puller judges.
	Puller agent.Puller

	// Jitter picks a duration in [0, d]; nil picks at random.
	Jitter func(d time.Duration) time.Duration
	// Before is called before every change to the disk; see durable.Options.
	Before func(durable.Step) error
	// Log receives what happens; nil means nowhere.
	Log *slog.Logger
}

// Source is an agent.Source whose word comes from a cluster. Profiles, Trust
// and Report are called by the agent's loop; the rest is safe for concurrent
// use.
type Source struct {
	opts    Options
	cache   *cacheFile
	changes chan struct{}
	writer  *writer

	mu             sync.Mutex
	nodes, trusted state
	present        bool // the ProfileNode is there
	wasPresent     bool // it was there once since start
	// spec is that of the ProfileNode as it was seen last, also before this
	// start; nil where it never was.
	spec []byte
	// policies are all TrustPolicies by name, also before this start; nil where
	// they never were read.
	policies map[string][]byte
	// compiled is what the policies mean; nil where it must be found out.
	compiled *compiled
	// generation counts what became known, read is the one the loop works on.
	generation, read int
}

type compiled struct {
	trust agent.Trust
	err   error
}

var _ agent.Source = (*Source)(nil)

// New returns a Source that knows what an earlier one kept in opts.Root. It
// contacts nobody before Run. The error is a *reason.Error.
func New(opts Options) (*Source, error) {
	if opts.Jitter == nil {
		opts.Jitter = func(d time.Duration) time.Duration { return time.Duration(rand.Int64N(int64(d) + 1)) } //nolint:gosec // spreads load, hides nothing
	}
	if opts.Log == nil {
		opts.Log = slog.New(slog.DiscardHandler)
	}
	if opts.Client == nil || opts.Puller == nil || opts.Node == "" {
		return nil, reason.New(reason.InstallFailed, "node", "no API client, no puller or no name of the node was given").
			WithAdvice("give --node-name, as the downward API names it (spec.nodeName)")
	}
	kept, err := openCache(opts.Root, opts.Before)
	if err != nil {
		return nil, err
	}
	s := &Source{opts: opts, cache: kept, changes: make(chan struct{}, 1), writer: newWriter(opts)}
	known, err := kept.load(opts.Node)
	if err != nil {
		opts.Log.Warn("what was kept for starts without an API server cannot be used", "error", err)
	}
	s.spec, s.policies = known.Spec, known.Policies
	return s, nil
}

// Run watches and writes until ctx ends. A watch that pauses in an outage ends a
// little later by itself; it touches memory alone.
func (s *Source) Run(ctx context.Context) {
	go s.watchAll(ctx, v1alpha1.KindProfileNode, s.opts.Node, s.opts.Client.nodes, &s.nodes, s.nodeStore())
	go s.watchAll(ctx, v1alpha1.KindTrustPolicy, "", s.opts.Client.policies, &s.trusted, s.policyStore())
	s.writer.run(ctx)
}

// Close releases the folder, after Run has ended.
func (s *Source) Close() error { return s.cache.close() }

// Changes says that something changed; see agent.Options.
func (s *Source) Changes() <-chan struct{} { return s.changes }

// Synced reports whether the ProfileNode and the TrustPolicies were read, each
// once at least since start.
func (s *Source) Synced() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.wasPresent && s.trusted.synced
}

// Report hands a report to the API server, as soon as that is worth a write;
// see agent.Options.Reported.
func (s *Source) Report(r status.Report, busy bool) {
	s.mu.Lock()
	stale := s.generation != s.read || !s.trusted.synced && s.trusted.refused == nil
	s.mu.Unlock()
	s.writer.report(r, busy || stale)
}

// changed says that the loop has something to read. The caller holds mu.
func (s *Source) changed() {
	s.generation++
	select {
	case s.changes <- struct{}{}:
	default: // one is waiting already
	}
}

// noted takes in how a request of a watch ended.
func (s *Source) noted(kind string, st *state, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !st.note(err) {
		return
	}
	if err != nil {
		s.opts.Log.Warn("the API server cannot be read; what is known stays in force", "kind", kind, "error", err)
	}
	s.changed()
}

func (s *Source) nodeStore() objects {
	return objects{
		set: func(object *unstructured.Unstructured) { s.setNode(object) },
		gone: func(name string) {
			if name == s.opts.Node {
				s.setNode(nil)
			}
		},
		replace: func(all []*unstructured.Unstructured) {
			i := slices.IndexFunc(all, func(u *unstructured.Unstructured) bool { return u.GetName() == s.opts.Node })
			if i < 0 {
				s.setNode(nil)
				return
			}
			s.setNode(all[i])
		},
	}
}

// setNode takes in the ProfileNode as it is now; nil where there is none.
func (s *Source) setNode(object *unstructured.Unstructured) {
	if object != nil && object.GetName() != s.opts.Node {
		return
	}
	var spec []byte
	if object != nil {
		spec = specOf(object)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	same := s.nodes.synced && s.present == (object != nil) && (object == nil || bytes.Equal(spec, s.spec))
	s.nodes.synced, s.present = true, object != nil
	s.wasPresent = s.wasPresent || s.present
	if object != nil {
		s.spec = spec
	}
	s.writer.observe(object, !same)
	if !same {
		s.changed()
	}
}

// specOf encodes the spec; an object without one assigns nothing.
func specOf(object *unstructured.Unstructured) []byte {
	spec, ok := object.Object["spec"]
	if !ok || spec == nil {
		return []byte("{}")
	}
	encoded, err := json.Marshal(spec)
	if err != nil {
		return []byte(`"it cannot be encoded"`) // which nobody can decode either
	}
	return encoded
}

func (s *Source) policyStore() objects {
	return objects{
		set: func(object *unstructured.Unstructured) {
			s.setPolicies(func(known map[string][]byte) { known[object.GetName()] = policyBytes(object) })
		},
		gone: func(name string) {
			s.setPolicies(func(known map[string][]byte) { delete(known, name) })
		},
		replace: func(all []*unstructured.Unstructured) {
			s.setPolicies(func(known map[string][]byte) {
				clear(known)
				for _, object := range all {
					known[object.GetName()] = policyBytes(object)
				}
				s.trusted.synced = true
			})
		},
	}
}

// setPolicies changes what is known of the policies.
func (s *Source) setPolicies(change func(known map[string][]byte)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	synced := s.trusted.synced
	updated := maps.Clone(s.policies)
	if updated == nil {
		updated = map[string][]byte{}
	}
	change(updated)
	if synced == s.trusted.synced && maps.EqualFunc(updated, s.policies, bytes.Equal) {
		return
	}
	s.policies, s.compiled = updated, nil
	s.changed()
}

// policyBytes encodes a policy without what the server keeps in it for itself.
func policyBytes(object *unstructured.Unstructured) []byte {
	reduced := maps.Clone(object.Object)
	reduced["metadata"] = map[string]any{"name": object.GetName()}
	delete(reduced, "status")
	encoded, err := json.Marshal(reduced)
	if err != nil {
		return []byte("{}") // no policy: all are invalid
	}
	return encoded
}

// Profiles returns what is assigned to the node. What cannot be read now is
// what was read last, and lets nothing be removed.
func (s *Source) Profiles() (intent.Desired, error) {
	s.mu.Lock()
	s.read = s.generation
	spec, doubt := s.spec, s.doubt()
	s.mu.Unlock()
	desired := intent.Desired{NeedsRelease: true}
	if spec != nil {
		desired = intent.DecodeNode("ProfileNode "+s.opts.Node, spec)
	}
	if doubt != nil {
		desired.Complete = false
		desired.Invalid = append(desired.Invalid, intent.Problem{Origin: "ProfileNode " + s.opts.Node, Err: doubt})
	}
	return desired, nil
}

// doubt says why the spec that is known may not be what is assigned; nil where
// it is. The caller holds mu.
func (s *Source) doubt() *reason.Error {
	object := "ProfileNode " + s.opts.Node
	switch {
	case s.nodes.refused != nil:
		return reason.New(reason.InstallFailed, object, "the API server does not serve it: %w", s.nodes.refused).
			WithAdvice("check the CustomResourceDefinitions of Confine and the ClusterRole of the agent; everything stays meanwhile")
	case !s.nodes.synced:
		return reason.New(reason.InstallFailed, object, "the API server was not reached since the agent started: %w", orNotYet(s.nodes.unreachable)).
			WithAdvice("check the API server; what is installed is kept and repaired meanwhile")
	case !s.present:
		return reason.New(reason.InstallFailed, object, "there is none").
			WithAdvice("check that the controller runs: it makes one for each node; everything stays meanwhile")
	}
	return nil
}

var errNotYet = errors.New("no answer yet")

func orNotYet(err error) error {
	if err == nil {
		return errNotYet
	}
	return err
}

// Trust returns who is trusted. Before the policies were read since start, it is
// what an earlier process read, for what is installed alone.
func (s *Source) Trust() (agent.Trust, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.keep()
	if err := s.trusted.refused; err != nil {
		return nil, reason.New(reason.TrustPolicyInvalid, "TrustPolicies", "the API server does not serve them: %w", err).
			WithAdvice("check the CustomResourceDefinitions of Confine and the ClusterRole of the agent; what is installed stays meanwhile")
	}
	if s.policies == nil {
		return nil, s.notRead()
	}
	if s.compiled == nil {
		s.compiled = s.compile()
	}
	if s.compiled.err != nil {
		return nil, s.compiled.err
	}
	if !s.trusted.synced {
		return heldTrust{s.compiled.trust, s.notRead()}, nil
	}
	return s.compiled.trust, nil
}

func (s *Source) notRead() *reason.Error {
	return reason.New(reason.TrustPolicyInvalid, "TrustPolicies", "they were not read since the agent started: %w", orNotYet(s.trusted.unreachable)).
		WithAdvice("check the API server: nothing new is installed before who is trusted is known; what is installed is kept and repaired")
}

// compile makes one meaning of all policies. One that cannot be read makes all
// of them invalid: the others never suffice.
func (s *Source) compile() *compiled {
	if len(s.policies) > intent.MaxObjects {
		return &compiled{err: reason.New(reason.TrustPolicyInvalid, "TrustPolicies", "%d are more than %d", len(s.policies), intent.MaxObjects)}
	}
	decoded := make([]trust.Policy, 0, len(s.policies))
	for _, name := range slices.Sorted(maps.Keys(s.policies)) {
		policy, err := intent.DecodePolicyObject("TrustPolicy "+name, s.policies[name])
		if err != nil {
			return &compiled{err: err}
		}
		decoded = append(decoded, policy)
	}
	policies, err := trust.Compile(decoded)
	if err != nil {
		return &compiled{err: err}
	}
	return &compiled{trust: agent.NewTrust(s.opts.Puller, policies)}
}

// keep writes down what is known, for a start without an API server. That it
// cannot is no reason to wait. The caller holds mu.
func (s *Source) keep() {
	known := kept{Node: s.opts.Node, Spec: s.spec, Policies: s.policies}
	if s.spec == nil && s.policies == nil {
		return
	}
	if err := s.cache.save(known); err != nil {
		s.opts.Log.Warn("what is known cannot be kept for a start without an API server", "error", fmt.Errorf("%s: %w", s.cache.name(), err))
	}
}

// heldTrust is only good for what is installed.
type heldTrust struct {
	agent.Trust
	why *reason.Error
}

// Hold says why nothing new is installed.
func (t heldTrust) Hold() *reason.Error { return t.why }
