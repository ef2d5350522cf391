package cli

import (
	"context"
	"errors"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/validation"

	"github.com/confine-dev/confine/api/v1alpha1"
	"github.com/confine-dev/confine/cmd/confine/internal/kube"
	"github.com/confine-dev/confine/pkg/version"
)

// completionTimeout bounds what a press of the tab key waits for.
const completionTimeout = 3 * time.Second

// clusterFlags say which cluster and namespace, as kubectl's do.
type clusterFlags struct {
	kubeconfig string
	context    string
	namespace  string
	all        bool
}

func (f *clusterFlags) add(cmd *cobra.Command) {
	flags := cmd.Flags()
	flags.StringVar(&f.kubeconfig, "kubeconfig", "", "kubeconfig file (default $KUBECONFIG, else ~/.kube/config)")
	flags.StringVar(&f.context, "context", "", "context of the kubeconfig (default its current one)")
}

func (f *clusterFlags) addNamespace(cmd *cobra.Command) {
	cmd.Flags().StringVarP(&f.namespace, "namespace", "n", "", "namespace (default that of the context)")
}

func (f *clusterFlags) addAll(cmd *cobra.Command) {
	cmd.Flags().BoolVarP(&f.all, "all-namespaces", "A", false, "all namespaces")
}

// cluster finds the cluster; it contacts nobody yet.
func (a *app) cluster(f clusterFlags) (*kube.Client, error) {
	if f.all && f.namespace != "" {
		return nil, usagef("-A and -n exclude each other")
	}
	if f.namespace != "" && len(validation.IsDNS1123Label(f.namespace)) > 0 {
		return nil, usagef("-n %q: that is no name of a namespace", f.namespace)
	}
	return kube.Connect(kube.Options{
		Kubeconfig: f.kubeconfig, Context: f.context, Namespace: f.namespace,
		UserAgent: "confine/" + version.String(),
	})
}

// profileKey reads NAME or NAMESPACE/NAME.
func profileKey(arg string, f clusterFlags, fallback string) (types.NamespacedName, error) {
	namespace, name, qualified := strings.Cut(arg, "/")
	if !qualified {
		namespace, name = fallback, arg
	}
	if qualified && f.namespace != "" && f.namespace != namespace {
		return types.NamespacedName{}, usagef("%s: it is not in namespace %s, which -n names", arg, f.namespace)
	}
	if len(validation.IsDNS1123Label(namespace)) > 0 || len(validation.IsDNS1123Label(name)) > 0 {
		return types.NamespacedName{}, usagef("%q: give NAME or NAMESPACE/NAME of a SecurityProfile", arg)
	}
	return types.NamespacedName{Namespace: namespace, Name: name}, nil
}

// openProfile finds the cluster and the profile that an argument names.
func (a *app) openProfile(arg string, f clusterFlags) (*kube.Client, types.NamespacedName, error) {
	client, err := a.cluster(f)
	if err != nil {
		return nil, types.NamespacedName{}, err
	}
	key, err := profileKey(arg, f, client.Namespace())
	return client, key, err
}

// completeProfiles offers the names of the namespace's profiles, quickly or not
// at all.
func (a *app) completeProfiles(f *clusterFlags) cobra.CompletionFunc {
	return func(cmd *cobra.Command, args []string, typed string) ([]string, cobra.ShellCompDirective) {
		if len(args) > 0 {
			return nil, cobra.ShellCompDirectiveNoFileComp
		}
		client, err := a.cluster(*f)
		if err != nil {
			return nil, cobra.ShellCompDirectiveNoFileComp
		}
		ctx, cancel := context.WithTimeout(cmd.Context(), completionTimeout)
		defer cancel()
		namespace, _, qualified := strings.Cut(typed, "/")
		if !qualified {
			namespace = client.Namespace()
		}
		var names []string
		err = client.EachProfile(ctx, namespace, func(p *v1alpha1.SecurityProfile) {
			name := p.Name
			if qualified {
				name = p.Namespace + "/" + p.Name
			}
			if strings.HasPrefix(name, typed) {
				names = append(names, name)
			}
		})
		if err != nil {
			return nil, cobra.ShellCompDirectiveNoFileComp
		}
		return names, cobra.ShellCompDirectiveNoFileComp
	}
}

// orNode says both ways where a command finds no cluster.
func orNode(err error) error {
	var e *kube.Error
	if errors.Is(err, kube.ErrNoCluster) && errors.As(err, &e) {
		both := *e
		both.Advice += "; on a node without a cluster, name the agent's state folder: confine status --root /var/lib/confine"
		return &both
	}
	return err
}
