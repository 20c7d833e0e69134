"""The benchmark of steering measures something."""

from benchmarks import steering


def test_a_formed_field_takes_about_as_many_passes_as_latents():
    config = steering.Config(decoder="mlp", side=8, width=8, batch=2, amounts=1, repeats=1)
    row = steering.measured(config, 3)
    assert min(row["seconds"], row["cpu_s"], row["compiling_cpu_s"], row["memory_mib"]) > 0
    assert 2 < row["passes_a_field"] < 60
