// Command helm checks the chart in deploy/helm: it lints it, renders it with several values, and decodes what
// comes out strictly into the types of Kubernetes, so that no field is misspelt or misplaced.
package main

import (
	"fmt"
	"os"
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
	}
	for name, given := range accepted {
		rendered, err := render(loaded, given)
		if err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
		if err := decode(rendered); err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
	}
	refused := map[string]values{
		"no secret":        nil,
		"short secret":     given(values{"clusterSecret": "5e"}),
		"unknown value":    given(values{"replica": 3}),
		"unknown variable": given(values{"settings": values{"PATH": "/"}}),
		"no peers":         given(values{"replicas": 0}),
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
func decode(rendered map[string]string) error {
	var sets int
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
				sets++
				into = &apps.StatefulSet{}
			case "Service":
				into = &core.Service{}
			case "Secret":
				into = &core.Secret{}
			case "PodDisruptionBudget":
				into = &policy.PodDisruptionBudget{}
			default:
				return fmt.Errorf("%s: unexpected kind %q", file, kind.Kind)
			}
			if err := yaml.UnmarshalStrict([]byte(object), into); err != nil {
				return fmt.Errorf("%s: %w", file, err)
			}
			if set, ok := into.(*apps.StatefulSet); ok {
				if err := checkPods(set); err != nil {
					return fmt.Errorf("%s: %w", file, err)
				}
			}
		}
	}
	if sets != 1 {
		return fmt.Errorf("%d StatefulSets", sets)
	}
	return nil
}

// checkPods checks that probes and mounts name what exists.
func checkPods(set *apps.StatefulSet) error {
	volumes := map[string]bool{}
	for _, claim := range set.Spec.VolumeClaimTemplates {
		volumes[claim.Name] = true
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
