"""A small real ONNX graph with the inputs and outputs of every model; half a window's mean predicts its newest row."""

from __future__ import annotations

import hashlib

import numpy as np
import onnx
from onnx import parser

from detector.engine.calibration import tail
from detector.engine.model import Model, StreamValues
from detector.engine.tails import Tail
from schemas.frame import Frame
from schemas.manifest import Batching, Calibration, Channel, Manifest, Season, Training

# The mean over channels is a matrix product: along the last axis ReduceMean sums in an order that depends on where a
# row happens to lie in memory, so that a score's last bit would depend on its place in the batch.
_GRAPH = """
<ir_version: 10, opset_import: ["": 20]>
tiny (float[B,{W},{C}] x, bool[B,{W},{C}] mask, float[B,{C}] loc, float[B,{C}] scale{input})
  => (float[B] score, float[B,{C}] error, float[B,{C}] expected, float[B,{W},{C}] window)
{{
  axis = Constant<value = int64[1] {{1}}>()
  last = Constant<value = int64[1] {{{last}}}>()
  end = Constant<value = int64[1] {{{W}}}>()
  half = Constant<value = float {{0.5}}>()
  loc3 = Unsqueeze(loc, axis)
  scale3 = Unsqueeze(scale, axis)
  filled = Where(mask, x, loc3)
  centred = Sub(filled, loc3)
  z = Div(centred, scale3)
  mean = ReduceMean<keepdims = 0>(z, axis)
  newest3 = Slice(z, last, end, axis)
  newest = Squeeze(newest3, axis)
  {predicted}
  residual = Sub(newest, predicted)
  error = Mul(residual, residual)
  ones = Constant<value = float[{C},1] {{{weights}}}>()
  summed = MatMul(error, ones)
  score = Squeeze(summed, axis)
  scaled = Mul(predicted, scale)
  expected = Add(scaled, loc)
  expected3 = Unsqueeze(expected, axis)
  nothing = Sub(filled, filled)
  window = Add(nothing, expected3)
}}
"""


#: Episodes per day that the tiny model promises: one a week.
TAIL_RATE = 1 / 7

_PLAIN = "predicted = Mul(mean, half)"
#: With a season, what is usual counts as much as the window.
_SEASONAL = """unknown = IsNaN(context)
  usual = Where(unknown, loc, context)
  above = Sub(usual, loc)
  season = Div(above, scale)
  both = Add(mean, season)
  predicted = Mul(both, half)"""


def graph(window: int, channels: int, seasonal: bool = False) -> bytes:
    """The ONNX file's bytes."""
    model = parser.parse_model(
        _GRAPH.format(
            W=window,
            C=channels,
            last=window - 1,
            weights=", ".join([str(1 / channels)] * channels),
            input=f", float[B,{channels}] context" if seasonal else "",
            predicted=_SEASONAL if seasonal else _PLAIN,
        )
    )
    onnx.checker.check_model(model)
    return model.SerializeToString()


#: What of an image is not as the stream's level: the square of each pixel, and the largest of them.
_IMAGE_GRAPH = """
<ir_version: 10, opset_import: ["": 20]>
tiny (float[B,1,{V}] x, bool[B,1,{V}] mask, float[B,1] loc, float[B,1] scale)
  => (float[B] score, float[B,1] error, float[B,1] expected, float[B,1,{V}] window, float[B,{H},{W}] map)
{{
  axis = Constant<value = int64[1] {{1}}>()
  pixels = Constant<value = int64[1] {{2}}>()
  shape = Constant<value = int64[3] {{-1, {H}, {W}}}>()
  loc3 = Unsqueeze(loc, axis)
  scale3 = Unsqueeze(scale, axis)
  filled = Where(mask, x, loc3)
  centred = Sub(filled, loc3)
  z = Div(centred, scale3)
  square = Mul(z, z)
  map = Reshape(square, shape)
  error = ReduceMax<keepdims = 0>(square, pixels)
  score = Squeeze(error, axis)
  expected = Identity(loc)
  nothing = Sub(filled, filled)
  window = Add(nothing, loc3)
}}
"""


def image_graph(frame: Frame) -> bytes:
    """The ONNX file's bytes, for images of one band."""
    model = parser.parse_model(_IMAGE_GRAPH.format(V=frame.values, H=frame.height, W=frame.width))
    onnx.checker.check_model(model)
    return model.SerializeToString()


def tiny_model(
    window: int = 4,
    channels: int = 3,
    streams: tuple[str, ...] = ("a", "b"),
    *,
    interval_s: float = 1.0,
    threshold: float = 3.0,
    span: float = 4.0,
    batching: Batching | None = None,
    season: Season | None = None,
    known: tuple[Channel, ...] | None = None,
) -> Model:
    """A model whose streams have mean 0 and standard deviation 1; ``known``: channels with limits of their own."""
    named = known or tuple(Channel(name=f"c{c}") for c in range(channels))
    onnx_bytes = graph(window, len(named), season is not None)
    return _model(onnx_bytes, named, streams, window, interval_s, threshold, span, batching, season)


def tiny_image_model(
    frame: Frame, streams: tuple[str, ...] = ("a", "b"), *, interval_s: float = 1.0, threshold: float = 3.0
) -> Model:
    """A model of grey images whose pixels have mean 0 and standard deviation 1; the worst pixel is the score."""
    named = (Channel(name="grey"),)
    return _model(image_graph(frame), named, streams, 1, interval_s, threshold, 1.0, None, None, frame)


def _model(
    onnx_bytes: bytes,
    named: tuple[Channel, ...],
    streams: tuple[str, ...],
    window: int,
    interval_s: float,
    threshold: float,
    span: float,
    batching: Batching | None,
    season: Season | None,
    frame: Frame | None = None,
) -> Model:
    count, channels = len(streams), len(named)
    tail_score, tail_p = tail(np.random.default_rng(0).random(999))
    epoch = "1970-01-01T00:00:00Z"
    manifest = Manifest(
        model="tiny",
        channels=named,
        frame=frame,
        window=window,
        interval_s=interval_s,
        season=season,
        smoothing_span=span,
        batching=batching or Batching(),
        calibration=Calibration(rate=TAIL_RATE, readings=999, threshold=threshold, floor=1e-3),
        training=Training(
            start=epoch, end=epoch, readings=1, streams=count, calibration_start=epoch, data_sha256="0" * 64, seed=0
        ),
        graph_sha256=hashlib.sha256(onnx_bytes).hexdigest(),
    )
    values = StreamValues(
        names=streams,
        loc=np.zeros((count, channels), np.float32),
        scale=np.ones((count, channels), np.float32),
        threshold=np.full(count, threshold),
        group_loc=np.zeros(channels, np.float32),
        group_scale=np.ones(channels, np.float32),
        factor=np.ones(count),
        # the threshold is reached once a week, three times it once in a hundred weeks
        tail=Tail(np.array([0.0, threshold, 3 * threshold]), TAIL_RATE * np.array([1e3, 1, 1e-2])),
        tail_score=tail_score * threshold,
        tail_p=tail_p,
    )
    return Model(manifest, onnx_bytes, values)
