"""Rows of the comparison, and how they are printed."""

from typing import Any

Row = dict[str, Any]


def row_of(what: str, times: dict[str, Row], work: float | None = None) -> Row:
    """Returns a row; `work` in GFLOP gives the speed of ours beside the seconds."""
    row: Row = {"what": what, "forms": times}
    own = times["ours"].get("seconds")
    rivals = [
        r["seconds"]
        for f, r in times.items()
        if not f.startswith(("ours", "xla")) and "seconds" in r
    ]
    if own and rivals:
        row["ratio"] = min(rivals) / own
    if own and work:
        row["gflops"] = work / own
    return row


def markdown(result: Row) -> str:
    machine = result["machine"]
    peak = machine["matrix_product_gflops"]
    lines = [
        f"## {result['benchmark']}",
        "",
        f"{machine['device']}, jax {machine['jax']}, torch {machine['torch']}, matrix "
        f"product {peak:.0f} GFLOP/s in {machine['matrix_product_type']}, median of "
        f"{machine['repeat']} at most.",
        "",
        "| what | seconds (peak MB) | best peer / ours |",
        "| --- | --- | --- |",
    ]
    for row in result["rows"]:
        if "forms" not in row:
            lines.append(f"| {row['what']} | {row['answer'].get('answer')} | |")
            continue
        forms = "; ".join(_form(name, reply) for name, reply in row["forms"].items())
        if "gflops" in row:
            share = row["gflops"] / peak
            forms += (
                f"; ours at {row['gflops']:.0f} GFLOP/s, {share:.0%} of the product"
            )
        if "unit_ms" in row:
            forms += f"; {row['unit_ms']:.0f} ms a sample of 64 cubed"
        ratio = f"{row['ratio']:.2f}" if "ratio" in row else "-"
        lines.append(f"| {row['what']} | {forms} | {ratio} |")
    return "\n".join(lines) + "\n"


def _form(name: str, reply: Row) -> str:
    if "seconds" not in reply:
        return f"{name} {reply.get('error', 'nothing')}"
    memory = f" ({reply['peak_mb']:.0f})" if "peak_mb" in reply else ""
    answer = reply.get("answer")
    told = f" D_pw {answer['d_pw']:.3f}" if isinstance(answer, dict) else ""
    return f"{name} {reply['seconds']:.4g}{memory}{told}"
