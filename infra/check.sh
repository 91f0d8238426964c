#!/bin/sh
# List what to fill in before applying the manifests: images without a digest, and addresses that are reserved for documentation.
# Exit code 1 if there is any. Run it from the repository's root, or name other files: sh infra/check.sh FILE ...
[ $# -gt 0 ] || set -- cluster/kuberay.yaml infra/kubernetes/*.yaml
if grep -nE 'sha256:0{64}|image: [^@]*$|registry\.example\.org|cidr: (192\.0\.2|198\.51\.100|203\.0\.113)\.' "$@" /dev/null; then
    echo 'posture: fill in these lines; infra/README.md says with what' >&2
    exit 1
fi
