"""Image references, and what engines make of them: measured on 20.10 and 26.1, and held by the contract suite."""

D = "a" * 64

TAKEN = (
    "nginx", "nginx:1.27", f"nginx:1.27@sha256:{D}", f"nginx@sha256:{D}", f"nginx@sha384:{'a' * 96}", f"nginx@sha512:{'a' * 128}",
    "library/nginx", "library/library/nginx", "docker.io", "docker.io/nginx:1", "docker.io/library/nginx:1", "docker.io/a/b",
    "docker.io/docker.io/nginx:1", "docker.io/index.docker.io/nginx", "docker.io/library/library/nginx",
    "index.docker.io/nginx", "index.docker.io/library/nginx:1", "index.docker.io/docker.io/nginx",
    "registry-1.docker.io/library/nginx:1", "DOCKER.IO/nginx:1", "Docker.io/library/nginx", "INDEX.DOCKER.IO/nginx:1",
    "docker.io:443/nginx", "docker.io:443/library/nginx:1",
    "REGISTRY.example.com/app:1", "REGISTRY:5000/app:1", "LOCALHOST:5000/app", "localhost", "localhost:5000", "localhost/app:1",
    "localhost:5000/app", "reg.example.com:5000/app", "reg.example.com:0/app", "reg.example.com:99999/app:1",
    "reg.example.com:00005000/app:1", "10.0.0.1/app:1", "10.0.0.1:5000/app:1", "1.2/a", "1/a", "0", "0/0", "a.b/c", "a.b", "a:80/b:c",
    "a:b", "a:80/b", "reg.example.com/a/b/c/d/e:1", "reg_host.example.com/app:1", "a_b/c:1", "a_b.c/d", "xn--bcher-kva.example/app:1",
    "reg.example.com/app:" + "t" * 128, "nginx:" + "1" * 128, "nginx:_x", "nginx:A_b.C-d", "a__b:1", "a-b--c:1", "a---b", "a.b_c", "a0__0",
    "scratch", "sha256", "sha256:abc", f"sha256:{D}", f"{D}:1", f"{D}@sha256:{D}", f"library/{D}", f"docker.io/{D}", f"localhost/{D}",
    "a" * 63, "a" * 65, "reg.example.com/" + "a" * 239, "docker.io/library/" + "a" * 237, "a/" + "b" * 243,
    "reg.example.com/" + "a/" * 100 + "b",
)  # fmt: skip
"""By every engine."""

REFUSED = (
    "nginx:", "nginx/", "/nginx", ":1", "nginx@", "nginx:1@", f"@sha256:{D}", "a//b", "docker.io/", "localhost/", "a:b/c",
    f"nginx@sha256:{'A' * 64}", "nginx@sha256:abc", f"nginx@sha256:{'a' * 65}", f"nginx:1@sha256:{'a' * 63}", f"nginx@sha256:{'g' * 64}",
    f"nginx@SHA256:{D}", f"nginx@sha384:{D}", f"nginx@sha512:{D}", f"nginx@sha512:{'A' * 128}", f"nginx@md5:{'a' * 32}",
    f"nginx@sha1:{'a' * 40}", f"nginx@blake3:{D}", f"nginx@sha256+b64:{D}", f"nginx:1@sha256:{D}@sha256:{D}",
    f"reg.example.com/app@sha256:{D}:1", D, "0" * 64, "F" * 64,
    "Nginx:1", "a/B", "a.b/C", "reg.example.com:/app:1", "reg.example.com:5000a/app", "::1/app:1", "[]/app:1", "[1]/app:1", "[g::1]/app:1",
    "[::1]:/app", "[fe80::1%25eth0]:5000/app:1", "[::ffff:1.2.3.4]:5000/app:1", "user@reg.example.com/app:1", "user:pw@reg.example.com/app",
    "https://reg.example.com/app:1", "reg.example.com/app:1/", "reg.example.com/app/:1", "reg.example.com//app:1",
    "reg.example.com%3A80/app", "reg.example.com./app:1", "reg-.example.com/app:1", "a-.b/c", "-a.b/c", "a..b/c", "bücher.example/app:1",
    "reg.example.com/app:" + "t" * 129, "reg.example.com/app:.1", "reg.example.com/app:-1", "reg.example.com/app:1+build",
    "reg.example.com/app:1:2", "reg.example.com/app @x", "app_:1", "a___b:1", "a..b:1", "a.-b", "a_-b", "a-_b", "_a/b", "a/_b", "a/b_",
    "a/b.", "a/.b", "a/b-", "a/-b", "../x", "./x", "a/../b", "a/./b", " nginx:1 ", "nginx:1\n", "nginx\t", "nginx:1\0", "nginx:ünï", "nginx#1",
    "nginx%20", "a" * 248, "a" * 256, "library/" + "a" * 248, "reg.example.com/" + "a" * 260, "a/" + "b" * 254,
)  # fmt: skip
"""By every engine."""

NEWER = (
    "Registry/app:1", "LOCALHOST/app:1", "Localhost/app", "rEgistry/app", "A/b", "[::1]/app:1", "[::1]:5000/app:1",
    f"[2001:db8::1]:5000/app@sha256:{D}", "a" * 247, "library/" + "a" * 247, "docker.io/" + "a" * 246, "docker.io/library/" + "a" * 238,
    "a/" + "b" * 244, "a/" + "b" * 253, "reg.example.com/" + "a" * 240, "reg.example.com/" + "a" * 254,
)  # fmt: skip
"""Taken by 26.1 and refused by 20.10, at the latest when the image is looked up."""
