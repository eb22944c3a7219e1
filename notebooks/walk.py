"""The reverse process of one user as a picture with a slider, in HTML: it needs neither a kernel nor a network.

The slider's code is its attribute `oninput`, not a script: a page that takes the picture takes it whole.
"""

import json
from html import escape

from IPython.display import HTML

WIDTH, MARGIN, LEGEND = 640, 15, 185
MOVE = """const figure = this.closest('figure'), walk = JSON.parse(figure.dataset.walk);
const [x, y, X, Y, words] = walk[this.value], trail = walk.slice(0, +this.value + 1);
figure.querySelector('.trail').setAttribute('points', trail.map(step => step.slice(0, 2)).join(' '));
figure.querySelector('.point').setAttribute('transform', `translate(${x} ${y})`);
figure.querySelector('.belief').setAttribute('transform', `translate(${X} ${Y})`);
figure.querySelector('output').innerHTML = words;"""
SYMBOLS = {      # around (0, 0)
    "point": '<circle r="5" fill="#0072B2"/>', "belief": '<path d="M-6 -6h12v12h-12z" fill="#D55E00"/>',
    "best": '<path d="M0 -5l5 9h-10z" fill="#009E73"/>', "item": '<circle r="2" fill="#bbb"/>',
    "target": '<path d="M-7 0h14M0 -7v14" stroke="black" stroke-width="2.5"/>',
}
NAMES = {"point": 'x<tspan dy="4" font-size="10">s</tspan><tspan dy="-4">, its way dashed</tspan>',
         "belief": 'x̂<tspan dy="4" font-size="10">0</tspan>', "best": "the final top 20", "item": "other items",
         "target": "the test item"}


def slider(items, best, target, points, beliefs, words):
    """A slider through the steps, which shows x_s and x_0_hat of each among the items.

    Places are in a plane: items [N, 2], of them best [K, 2] and target [2], and for each step points (x_s) and beliefs
    (x_0_hat), both [T + 1, 2]. words: what is said of each step, T + 1 times HTML.
    """
    places = [[float(x), float(y)] for x, y in (*items, *best, target, *points, *beliefs)]
    left, top = min(x for x, _ in places), max(y for _, y in places)
    scale = (WIDTH - LEGEND - 2 * MARGIN) / (max(x for x, _ in places) - left)
    height = round(scale * (top - min(y for _, y in places))) + 2 * MARGIN

    def pixels(place):
        return round(MARGIN + scale * (float(place[0]) - left)), round(MARGIN + scale * (top - float(place[1])))

    def draw(name, x, y):
        return f'<g class="{name}" transform="translate({x} {y})">{SYMBOLS[name]}</g>'

    walk = [(*pixels(point), *pixels(belief), said) for point, belief, said in zip(points, beliefs, words)]
    dots = "".join("M{} {}h0".format(*pixels(place)) for place in items)
    picture = f'<path d="{dots}" stroke="#bbb" stroke-width="4" stroke-linecap="round"/>'
    picture += "".join(draw("best", *pixels(place)) for place in best) + draw("target", *pixels(target))
    picture += '<polyline class="trail" points="" fill="none" stroke="#0072B2" stroke-dasharray="4 2"/>'
    picture += draw("belief", *walk[0][2:4]) + draw("point", *walk[0][:2])
    for row, (name, text) in enumerate(NAMES.items()):       # after the picture: the slider moves the first of each
        picture += draw(name, WIDTH - LEGEND + 10, 20 + 25 * row)
        picture += f'<text x="{WIDTH - LEGEND + 25}" y="{25 + 25 * row}">{text}</text>'
    return HTML(f"""<figure style="margin: 0; max-width: {WIDTH}px; background: white; color: black"
 data-walk="{escape(json.dumps(walk, separators=(",", ":"), ensure_ascii=False))}">
<svg viewBox="0 0 {WIDTH} {height}" font-family="sans-serif" font-size="14" role="img" aria-label="x_s among the items">
{picture}</svg>
<label>noise <input type="range" min="0" max="{len(walk) - 1}" value="0" style="width: 60%; vertical-align: middle"
 oninput="{escape(MOVE)}"> the end</label><br>
<output>{words[0]}</output>
</figure>""")
