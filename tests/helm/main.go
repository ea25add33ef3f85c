// Command helm checks the chart in deploy/helm: it lints it, renders it with several values, and decodes what
// comes out strictly into the types of Kubernetes, so that no field is misspelt or misplaced.
package main

import (
	"errors"
	"fmt"
	"os"
	"reflect"
	"strconv"
	"strings"

	"helm.sh/helm/v3/pkg/chart"
	"helm.sh/helm/v3/pkg/chart/loader"
	"helm.sh/helm/v3/pkg/chartutil"
	"helm.sh/helm/v3/pkg/engine"
	"helm.sh/helm/v3/pkg/lint"
	"helm.sh/helm/v3/pkg/lint/support"
	apps "k8s.io/api/apps/v1"
	core "k8s.io/api/core/v1"
	policy "k8s.io/api/policy/v1"
	rbac "k8s.io/api/rbac/v1"
	"sigs.k8s.io/yaml"
)

const secret = "5e5e5e5e5e5e5e5e5e5e5e5e5e5e5e5e5e5e5e5e5e5e5e5e5e5e5e5e5e5e5e5e"

type values = map[string]any

// given is the least that a user must give.
func given(more values) values {
	all := values{
		"clusterSecret": secret,
		"identity":      values{"id": "12D3KooWExample", "privateKey": "CAESQ=="},
	}
	for key, value := range more {
		all[key] = value
	}
	return all
}

func main() {
	if len(os.Args) != 2 {
		fmt.Fprintln(os.Stderr, "usage: helm CHART")
		os.Exit(1)
	}
	if err := check(os.Args[1]); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func check(folder string) error {
	for _, message := range lint.All(folder, given(nil), "default", true).Messages {
		if message.Severity > support.InfoSev {
			return fmt.Errorf("lint: %s", message)
		}
	}
	loaded, err := loader.Load(folder)
	if err != nil {
		return err
	}
	accepted := map[string]values{
		"defaults":        given(nil),
		"existing secret": {"existingSecret": "elsewhere"},
		"kubo": given(values{"kubo": values{"enabled": true, "resources": values{
			"limits": values{"memory": "2Gi"}}}}),
		"everything": given(values{
			"replicas": 5, "identityPod": 1, "resources": values{"requests": values{"cpu": "1"}},
			"api": values{"credentialsSecret": "users", "proxy": true, "pinningService": true,
				"service": values{"type": "LoadBalancer", "annotations": values{"a": "b"}}},
			"persistence":  values{"storageClass": "fast"},
			"nodeSelector": values{"disk": "big"}, "podAnnotations": values{"c": "d"},
			"tolerations":  []any{values{"key": "ipfs", "operator": "Exists"}},
			"metrics":      values{"enabled": false},
			"antiAffinity": false,
		}),
		"no drain": given(values{"drainOnScaleDown": values{"enabled": false}}),
	}
	for name, given := range accepted {
		rendered, err := render(loaded, given)
		if err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
		if err := decode(rendered, name != "no drain"); err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
	}
	refused := map[string]values{
		"no secret":        nil,
		"short secret":     given(values{"clusterSecret": "5e"}),
		"unknown value":    given(values{"replica": 3}),
		"unknown variable": given(values{"settings": values{"PATH": "/"}}),
		"no peers":         given(values{"replicas": 0}),
		"no time to drain": given(values{"drainOnScaleDown": values{"seconds": 0}}),
	}
	for name, given := range refused {
		if _, err := render(loaded, given); err == nil {
			return fmt.Errorf("%s: was not refused", name)
		}
	}
	fmt.Printf("%d passed, 0 failed\n", len(accepted)+len(refused)+1)
	return nil
}

func render(loaded *chart.Chart, given values) (map[string]string, error) {
	options := chartutil.ReleaseOptions{Name: "test", Namespace: "default", IsInstall: true}
	all, err := chartutil.ToRenderValues(loaded, given, options, chartutil.DefaultCapabilities)
	if err != nil {
		return nil, err
	}
	return engine.Render(loaded, all)
}

// decode reads each object strictly, and checks what refers to each other.
func decode(rendered map[string]string, drains bool) error {
	var sets []*apps.StatefulSet
	accounts, roles := map[string]bool{}, map[string]*rbac.Role{}
	var bindings []*rbac.RoleBinding
	for file, text := range rendered {
		if !strings.HasSuffix(file, ".yaml") {
			continue
		}
		for _, object := range strings.Split(text, "\n---\n") {
			if strings.TrimSpace(object) == "" {
				continue
			}
			var kind struct{ Kind string }
			if err := yaml.Unmarshal([]byte(object), &kind); err != nil {
				return fmt.Errorf("%s: %w", file, err)
			}
			var into any
			switch kind.Kind {
			case "StatefulSet":
				set := &apps.StatefulSet{}
				sets = append(sets, set)
				into = set
			case "Service":
				into = &core.Service{}
			case "Secret":
				into = &core.Secret{}
			case "PodDisruptionBudget":
				into = &policy.PodDisruptionBudget{}
			case "ServiceAccount":
				into = &core.ServiceAccount{}
			case "Role":
				into = &rbac.Role{}
			case "RoleBinding":
				binding := &rbac.RoleBinding{}
				bindings = append(bindings, binding)
				into = binding
			default:
				return fmt.Errorf("%s: unexpected kind %q", file, kind.Kind)
			}
			if err := yaml.UnmarshalStrict([]byte(object), into); err != nil {
				return fmt.Errorf("%s: %w", file, err)
			}
			switch object := into.(type) {
			case *apps.StatefulSet:
				if err := checkPods(object); err != nil {
					return fmt.Errorf("%s: %w", file, err)
				}
			case *core.ServiceAccount:
				accounts[object.Name] = true
			case *rbac.Role:
				roles[object.Name] = object
			}
		}
	}
	if len(sets) != 1 {
		return fmt.Errorf("%d StatefulSets", len(sets))
	}
	if !drains {
		if len(accounts)+len(roles)+len(bindings) > 0 || sets[0].Spec.Template.Spec.ServiceAccountName != "" {
			return errors.New("rights in the API of Kubernetes that are not needed")
		}
		return nil
	}
	return checkDrain(sets[0], accounts, roles, bindings)
}

// checkDrain checks that the hook of the peer may read its own StatefulSet, and nothing else.
func checkDrain(
	set *apps.StatefulSet, accounts map[string]bool, roles map[string]*rbac.Role, bindings []*rbac.RoleBinding,
) error {
	pod := set.Spec.Template.Spec
	if !accounts[pod.ServiceAccountName] || len(bindings) != 1 || len(roles) != 1 {
		return errors.New("the pods have no ServiceAccount of their own with one Role")
	}
	subject := bindings[0].Subjects[0]
	if subject.Kind != "ServiceAccount" || subject.Name != pod.ServiceAccountName || subject.Namespace != "default" {
		return fmt.Errorf("the Role is bound to %v", subject)
	}
	role := roles[bindings[0].RoleRef.Name]
	wanted := []rbac.PolicyRule{{
		APIGroups: []string{"apps"}, Resources: []string{"statefulsets"}, ResourceNames: []string{set.Name}, Verbs: []string{"get"},
	}}
	if role == nil || !reflect.DeepEqual(role.Rules, wanted) {
		return fmt.Errorf("the Role permits %v", role)
	}
	hook := pod.Containers[0].Lifecycle.PreStop.Exec.Command
	if len(hook) != 7 || hook[4] != set.Name || !strings.Contains(hook[2], "peers drain") {
		return fmt.Errorf("the hook of the peer is %q", hook)
	}
	seconds, err := strconv.ParseInt(hook[5], 10, 64)
	if err != nil || *pod.TerminationGracePeriodSeconds < seconds+120 {
		return fmt.Errorf("the pod has %d seconds, the hook %s", *pod.TerminationGracePeriodSeconds, hook[5])
	}
	for _, container := range pod.Containers[1:] {
		for _, mount := range container.VolumeMounts {
			if strings.HasPrefix(mount.MountPath, "/var/run/secrets") {
				return fmt.Errorf("%s has a token of Kubernetes", container.Name)
			}
		}
		if container.Lifecycle == nil {
			return fmt.Errorf("%s ends before the peer", container.Name)
		}
	}
	return nil
}

// checkPods checks that probes and mounts name what exists.
func checkPods(set *apps.StatefulSet) error {
	volumes := map[string]bool{}
	for _, claim := range set.Spec.VolumeClaimTemplates {
		volumes[claim.Name] = true
	}
	for _, volume := range set.Spec.Template.Spec.Volumes {
		volumes[volume.Name] = true
	}
	for _, container := range set.Spec.Template.Spec.Containers {
		ports := map[string]bool{}
		for _, port := range container.Ports {
			ports[port.Name] = true
		}
		for _, probe := range []*core.Probe{container.StartupProbe, container.LivenessProbe, container.ReadinessProbe} {
			if probe != nil && !ports[probe.HTTPGet.Port.StrVal] {
				return fmt.Errorf("%s: no port %s", container.Name, probe.HTTPGet.Port.StrVal)
			}
		}
		for _, mount := range container.VolumeMounts {
			if !volumes[mount.Name] {
				return fmt.Errorf("%s: no volume %s", container.Name, mount.Name)
			}
		}
	}
	for label, value := range set.Spec.Selector.MatchLabels {
		if set.Spec.Template.Labels[label] != value {
			return fmt.Errorf("the selector's label %s is not on the pods", label)
		}
	}
	return nil
}
