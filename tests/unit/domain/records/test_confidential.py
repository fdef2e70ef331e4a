"""Which texts of records are taken out of whatever is told, and which every plan shows."""

import pytest

from coreflow.domain.ids import BundleId, ClusterId, GroupId, ImageId, RegistryId, ServiceId
from coreflow.domain.records.confidential import known_in
from coreflow.domain.records.models import (
    BindingRecord,
    CertificateRecord,
    ClusterRecord,
    DomainRecord,
    ExternalRegistryRecord,
    GatewayRecord,
    HealthCheckRecord,
    ImageLocation,
    ImageRecord,
    ImageVersion,
    PlatformRecord,
    Records,
    RegistryLogin,
    RegistryTarget,
    SecretBundleRecord,
    SecretGroupRecord,
    SecretValue,
    ServiceRecord,
    VolumeRecord,
)

TARGET = RegistryTarget(
    registry_host="target.example",
    repository="shop/front",
    image_url="image.example:5000/shop",
    registry_info=RegistryLogin(
        serveraddress="https://target.example", username="robot", password="t4rget-Pass/word"
    ),
)
SHOP = ServiceRecord(
    id=ServiceId("service-9Xb31"),
    name="shop-front",
    image_id=ImageId("image-77Qa1"),
    registry_target=TARGET,
    environment={"API_KEY": "env-9Vq1-value", "MODE": "debug", "COLOUR": "turquoise"},
    domains=(DomainRecord(name="shop.example"),),
    volumes=(
        VolumeRecord(mount_path="/srv/data-1", driver="nfs-x1", options={"opt-name1": "opt-8Kz2-value"}),
    ),
    health_check=HealthCheckRecord(command=("probe-tool", "--token=hc-5Wd3-value")),
)
BINDING = BindingRecord(
    id="b1",
    service_id=SHOP.id,
    capability="database",
    config={"deep": [{"er": "cfg-2Lm4-value"}], "size": 3},
)
RECORDS = Records(
    cluster=ClusterRecord(
        id=ClusterId("cluster-5Tt2"),
        cloudly_url="https://cloudly.example",
        registry_info=RegistryLogin(
            serveraddress="https://r.example", username="robot", password="cl0ster-Pass/word"
        ),
    ),
    services=(SHOP,),
    images={
        ImageId("image-77Qa1"): ImageRecord(
            id=ImageId("image-77Qa1"),
            location=ImageLocation(external_image_tag="tag-2024-x1"),
            versions=(ImageVersion(version_string="1.2.3-rc9Zz"),),
        )
    },
    external_registries={
        RegistryId("registry-1Ab"): ExternalRegistryRecord(
            id=RegistryId("registry-1Ab"), url="https://ext.example/v2", password="ext3rnal-Pass/word"
        )
    },
    secret_bundles={BundleId("bundle-4Rr8"): SecretBundleRecord(id=BundleId("bundle-4Rr8"))},
    secret_groups={
        GroupId("group-6Ss9"): SecretGroupRecord(
            id=GroupId("group-6Ss9"),
            key="GROUP_KEY_1",
            environments={"a": SecretValue(value="grp-7Np5-value"), "b": SecretValue(value="turquoise")},
        )
    },
    platform=PlatformRecord(bindings=(BINDING,)),
    gateway=GatewayRecord(type="dcrouter", url="https://gw.example", api_token="gw-t0ken-3Hj6"),
    certificates={
        "shop.example": CertificateRecord(
            domain_name="shop.example", private_key="pem-k3y-1Yt7-text", public_key="public"
        )
    },
)


@pytest.mark.parametrize(
    "secret",
    [
        "t4rget-Pass/word",
        "cl0ster-Pass/word",
        "ext3rnal-Pass/word",
        "pem-k3y-1Yt7-text",
        "gw-t0ken-3Hj6",
        "grp-7Np5-value",
        "env-9Vq1-value",
        "opt-8Kz2-value",
        "--token=hc-5Wd3-value",
        "cfg-2Lm4-value",
        "turquoise",
    ],
)
def test_what_must_not_be_told(secret: str) -> None:
    """Logins, keys, tokens, values; a word, too, that is the value of a secret group."""
    assert secret not in known_in(RECORDS).redact(f"it says {secret} here")


@pytest.mark.parametrize(
    "text",
    [
        "cluster-5Tt2",
        "https://cloudly.example",
        "service-9Xb31",
        "shop-front",
        "image-77Qa1",
        "tag-2024-x1",
        "1.2.3-rc9Zz",
        "registry-1Ab",
        "https://ext.example/v2",
        "bundle-4Rr8",
        "group-6Ss9",
        "GROUP_KEY_1",
        "API_KEY",
        "image.example:5000/shop",
        "shop/front",
        "shop.example",
        "/srv/data-1",
        "nfs-x1",
        "opt-name1",
        "debug",
    ],
)
def test_what_every_plan_shows(text: str) -> None:
    """Ids, names, references and addresses stay, even beside their secrets, and values that are no more than words."""
    told = known_in(RECORDS).redact(f"it says {text} here, and env-9Vq1-value")
    assert f"it says {text} here" in told
    assert "env-9Vq1-value" not in told


def test_records_without_anything_in_them() -> None:
    """A cluster alone has nothing to hide."""
    bare = Records(cluster=ClusterRecord(id=ClusterId("c")), services=(ServiceRecord(id=SHOP.id, name="s"),))
    assert known_in(bare).redact("anything of 8 letters") == "anything of 8 letters"
