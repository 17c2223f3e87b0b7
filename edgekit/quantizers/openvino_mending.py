"""What NNCF does to an OpenVINO model in float before it is quantized: even out channels, smooth activations.

Refuses a model in which there is nothing to even out or to smooth."""

from typing import Any

from edgekit_runtime.errors import Unsupported

ALPHAS = {"convolution": 0.15, "matmul": 0.15}
"""How much of an activation's outliers moves into the weights behind it, from 0 to 1."""


def equalized(model: Any, data: Any, count: int) -> Any:
    """Neighbouring convolutions with nothing between them, scaled and shifted so that the channels from one to the
    next have like ranges (NNCF's channel alignment), by `count` samples of `data`."""
    from nncf.openvino.graph.nncf_graph_builder import GraphConverter
    from nncf.quantization.algorithms.channel_alignment.algorithm import ChannelAlignment

    step, graph = ChannelAlignment(count), GraphConverter.create_nncf_graph(model)
    points = step.get_statistic_points(model, graph)
    if not points:
        raise Unsupported(
            "there is nothing to equalize: no convolution feeds another without padding directly",
            hint="leave equalization out",
        )
    _collect(model, graph, points, data)
    _as_numpy(points)
    return step.apply(model, graph, points)


def smoothed(model: Any, data: Any, count: int) -> Any:
    """Channels of activations divided, and the weights behind them multiplied, by what makes both easy to hold in
    integers (SmoothQuant), by `count` samples of `data`.

    Not right behind a ReduceMean: OpenVINO's CPU plugin fuses the division and the rounding into the reduction and
    gets it wrong (answers a fifth too large on a transformer whose head was fed by a mean).
    """
    from nncf.openvino.graph.nncf_graph_builder import GraphConverter
    from nncf.quantization.algorithms.smooth_quant.algorithm import SmoothQuant

    step, graph = SmoothQuant(count, alpha_map=ALPHAS), GraphConverter.create_nncf_graph(model)
    candidates = step._get_nodes_to_smooth_data

    def safe(graph: Any, metatypes: Any) -> list[Any]:
        found = candidates(graph, metatypes)
        return [(node, port) for node, port in found if not _is_reduced(graph, node, port)]

    step._get_nodes_to_smooth_data = safe
    points = step.get_statistic_points(model, graph)
    if not points:
        raise Unsupported(
            "there is nothing to smooth: no convolution or product with weights of its own", hint="leave smoothing out"
        )
    _collect(model, graph, points, data)
    return step.apply(model, graph, points)


def _is_reduced(graph: Any, node: Any, port: int) -> bool:
    return str(graph.get_input_edge_by_port_id(node, port).from_node.node_type).startswith("Reduce")


def correctable(model: Any) -> bool:
    """Whether any operator that int8 can hold has a bias."""
    from nncf.openvino.graph.nncf_graph_builder import GraphConverter
    from nncf.openvino.graph.node_utils import is_node_with_bias

    graph = GraphConverter.create_nncf_graph(model)
    return any(is_node_with_bias(node, graph) for node in graph.get_all_nodes())


def _collect(model: Any, graph: Any, points: Any, data: Any) -> None:
    from nncf.common.factory import StatisticsAggregatorFactory

    aggregator = StatisticsAggregatorFactory.create(model, data)
    aggregator.register_statistic_points(points)
    aggregator.collect_statistics(model, graph)


def _as_numpy(points: Any) -> None:
    """NNCF 3.4's alignment computes in numpy with statistics that come as NNCF's own tensors, and dies of it
    (KeyError: numpy.float32); so they are given as numpy's."""
    from nncf.common.tensor_statistics.statistics import MinMaxTensorStatistic

    for _, _, collector in points.get_tensor_collectors():
        found = collector.get_statistics()
        if found.min_values is not None:
            found = MinMaxTensorStatistic(min_values=found.min_values.data, max_values=found.max_values.data)
        collector.get_statistics = lambda found=found: found
