"""Word lists from which the little tasks are made, written for this project.

Common knowledge set down by hand: none of them was taken from, or looked up in, a data set.
Topics, and the words of opposite feeling, are what `families.py` builds labelled tasks from.
"""


def _words(text: str) -> tuple[str, ...]:
    return tuple(part.strip() for part in text.replace("\n", " ").split(",") if part.strip())


TOPICS = {
    "animal": _words(
        "dog, cat, horse, cow, sheep, goat, pig, lion, tiger, elephant, monkey, rabbit, mouse, "
        "fox, wolf, bear, deer, camel, donkey, squirrel, hedgehog, giraffe, zebra, hippo"
    ),
    "bird": _words(
        "eagle, sparrow, robin, owl, crow, pigeon, parrot, swan, goose, hen, rooster, hawk, "
        "penguin, peacock, stork, seagull, duck, turkey, raven, swallow"
    ),
    "food": _words(
        "bread, cheese, butter, soup, rice, pasta, meat, egg, cake, pie, salad, sandwich, sugar, "
        "honey, porridge, stew, biscuit, pancake, sausage, noodles"
    ),
    "fruit": _words(
        "apple, pear, plum, cherry, grape, orange, lemon, banana, peach, mango, melon, "
        "strawberry, raspberry, fig, date, apricot, coconut, pineapple, lime, blackberry"
    ),
    "vegetable": _words(
        "carrot, potato, onion, cabbage, tomato, bean, pea, lettuce, spinach, pumpkin, garlic, "
        "cucumber, radish, turnip, beet, corn, celery, mushroom, pepper, leek"
    ),
    "clothes": _words(
        "shirt, coat, hat, shoe, sock, glove, dress, skirt, scarf, jacket, trousers, belt, boot, "
        "cap, cloak, apron, sweater, shawl, gown, slipper"
    ),
    "body": _words(
        "head, arm, leg, hand, foot, finger, nose, ear, eye, mouth, knee, elbow, shoulder, neck, "
        "back, chin, cheek, tooth, tongue, toe"
    ),
    "family": _words(
        "mother, father, sister, brother, aunt, uncle, cousin, grandmother, grandfather, son, "
        "daughter, nephew, niece, husband, wife, baby, twin, parent"
    ),
    "house": _words(
        "kitchen, bedroom, door, window, roof, wall, floor, stairs, garden, chimney, cellar, "
        "attic, table, chair, bed, lamp, curtain, shelf, cupboard, carpet"
    ),
    "vehicle": _words(
        "car, bus, train, truck, bicycle, ship, boat, plane, wagon, cart, tram, lorry, van, taxi, "
        "motorcycle, carriage, sled, ferry, canoe, rocket"
    ),
    "tool": _words(
        "hammer, saw, nail, screw, drill, axe, spade, rake, ladder, rope, knife, scissors, needle, "
        "brush, shovel, wrench, chisel, plough, pliers, bucket"
    ),
    "colour": _words(
        "red, blue, green, yellow, black, white, brown, pink, purple, grey, golden, silver, "
        "scarlet, violet, crimson"
    ),
    "job": _words(
        "teacher, doctor, nurse, farmer, baker, soldier, sailor, lawyer, judge, carpenter, cook, "
        "driver, tailor, painter, miner, clerk, priest, butcher, blacksmith, shepherd"
    ),
    "school": _words(
        "lesson, pupil, book, pencil, classroom, exam, homework, teacher, blackboard, notebook, "
        "essay, spelling, student, library, chapter, grammar, diploma, lecture"
    ),
    "money": _words(
        "price, bank, coin, dollar, loan, tax, profit, wage, debt, salary, market, shop, budget, "
        "cheque, interest, income, fee, rent, savings, payment"
    ),
    "illness": _words(
        "fever, cough, pain, wound, disease, medicine, hospital, headache, infection, pill, "
        "bandage, cold, rash, surgery, vaccine, virus, injury, cure"
    ),
    "law": _words(
        "court, judge, jury, crime, prison, law, trial, witness, thief, police, guilty, verdict, "
        "lawyer, arrest, sentence, justice, evidence, appeal"
    ),
    "war": _words(
        "army, battle, soldier, gun, enemy, captain, sword, attack, fort, victory, general, "
        "regiment, cannon, defeat, troops, bullet, siege, invasion"
    ),
    "feeling": _words(
        "anger, joy, fear, love, hope, pride, shame, grief, envy, delight, sorrow, worry, "
        "surprise, disgust, pity, guilt"
    ),
    "time": _words(
        "hour, minute, day, week, month, year, morning, evening, night, noon, century, second, "
        "yesterday, tomorrow, autumn, winter, spring, summer"
    ),
    "country": _words(
        "France, Germany, Spain, Italy, China, Japan, India, Egypt, Kenya, Brazil, Canada, "
        "Mexico, Russia, Greece, Norway, Sweden, Poland, Turkey, Peru, Nigeria"
    ),
    "name": _words(
        "Anna, Peter, Mary, John, Lucy, Tom, Sara, Ben, Emma, Jack, Rosa, David, Nina, Paul, "
        "Clara, Max, Laura, Simon, Eva, Oscar"
    ),
    "plant": _words(
        "rose, tulip, oak, pine, grass, fern, ivy, daisy, lily, moss, bush, willow, palm, thistle, "
        "clover, vine, seed, root, leaf, branch"
    ),
    "science": _words(
        "atom, cell, energy, planet, gravity, molecule, experiment, theory, telescope, bacteria, "
        "electron, star, orbit, laboratory, chemistry, protein, species, magnet"
    ),
}

# Four topics that no training episode is made of.
HELD_OUT_TOPICS = {
    "weather": _words(
        "rain, snow, wind, storm, cloud, fog, thunder, lightning, hail, frost, sunshine, breeze, "
        "drizzle, blizzard, mist, gale"
    ),
    "music": _words(
        "song, piano, violin, guitar, drum, flute, singer, melody, choir, trumpet, tune, organ, "
        "concert, harp, fiddle, chorus"
    ),
    "sport": _words(
        "football, tennis, race, goal, team, match, swimming, boxing, coach, player, referee, "
        "cricket, hockey, wrestling, rowing, golf"
    ),
    "sea": _words(
        "wave, tide, beach, shore, island, sailor, harbour, whale, shark, anchor, reef, coral, "
        "gull, lighthouse, crab, shell"
    ),
}

GOOD = _words(
    "good, great, wonderful, excellent, lovely, beautiful, delightful, charming, perfect, "
    "superb, splendid, fine, brilliant, amazing, fantastic, pleasant, enjoyable, happy, "
    "cheerful, kind, clever, funny, fresh, warm, delicious, helpful, reliable, comfortable, "
    "useful, easy, impressive, elegant, graceful, honest, brave, gentle, generous, friendly, "
    "interesting, exciting, thrilling, touching, moving, memorable, remarkable, outstanding, "
    "satisfying, refreshing, smart, witty, fascinating, powerful, strong, tender, sweet, "
    "bright, smooth, clean, clear, sharp, quick, fast, solid, sturdy, handy, worthy, "
    "favourite, best, better, love, loved, enjoy, enjoyed, admire, admired, praise, praised, "
    "like, liked, recommend, succeed, succeeds, success, triumph, pleasure, joy, delight, "
    "hope, treasure, gem, win, wins, pleased, glad, grateful, proud, support, supports, "
    "agree, welcome, benefit, improve, improved, progress, peace, trust, respect, faithful, "
    "sincere, noble, wise, marvellous, marvelous, magnificent, glorious, terrific, "
    "affordable, convenient, effective, crisp, vivid, engaging, inspired, inspiring, "
    "heartfelt, hilarious, entertaining, compelling, stunning, flawless, awesome"
)
BAD = _words(
    "bad, terrible, awful, horrible, ugly, dull, boring, poor, weak, stupid, silly, sad, "
    "angry, cruel, dirty, cold, bitter, sour, nasty, unpleasant, useless, broken, slow, "
    "noisy, difficult, annoying, disappointing, clumsy, dishonest, cowardly, rude, selfish, "
    "hostile, tedious, tiresome, empty, shallow, messy, mediocre, worst, worse, hate, hated, "
    "dislike, disliked, despise, despised, blame, blamed, fail, fails, failed, failure, "
    "waste, wasted, pain, sorrow, misery, despair, fear, trouble, problem, problems, "
    "disaster, mistake, mistakes, lose, loses, lost, regret, ashamed, oppose, opposed, "
    "refuse, refused, reject, rejected, harm, hurt, damage, damaged, danger, dangerous, "
    "threat, war, distrust, false, wicked, foolish, wretched, dreadful, miserable, gloomy, "
    "pathetic, ridiculous, absurd, pointless, lame, bland, stale, flat, clumsy, predictable, "
    "lifeless, pretentious, forgettable, unfunny, confusing, incoherent, overlong, cheap, "
    "faulty, defective, flimsy, unreliable, overpriced, expensive, frustrating, irritating, "
    "worthless, inferior, evil, guilty, condemn, condemned, criticise, criticism, complaint, "
    "complained, disgusting, hideous, vile, lousy, sloppy, awkward, harsh, unfair, unhappy, "
    "sick"
)
THINGS = _words(
    "soup, bread, song, picture, story, book, play, film, movie, actor, plot, ending, teacher, "
    "lesson, shop, waiter, hotel, room, bed, phone, battery, screen, camera, car, road, bridge, "
    "garden, house, dress, coat, speech, letter, plan, idea, game, team, king, law, treaty, city, "
    "music, voice, service, price, design, food, coffee, tool, machine, radio, work, answer, "
    "party, journey, neighbour, doctor, government, minister, policy, report, performance, scene"
)
ADVERBS = _words("very, really, quite, so, rather, truly, simply, always, extremely, almost, too")

OPPOSITES = dict(
    pair.split(" ")
    for pair in _words(
        "hot cold, big small, tall short, fast slow, old young, light dark, happy sad, rich poor, "
        "strong weak, early late, full empty, wet dry, hard soft, near far, high low, long short, "
        "loud quiet, clean dirty, open closed, right wrong, up down, left right, day night, first "
        "last, black white, good bad, thick thin, wide narrow, deep shallow, cheap expensive, "
        "easy difficult, sweet bitter, brave afraid, awake asleep, inside outside, above below"
    )
)
PLURALS = dict(
    pair.split(" ")
    for pair in _words(
        "dog dogs, cat cats, house houses, baby babies, city cities, man men, woman women, child "
        "children, foot feet, tooth teeth, mouse mice, leaf leaves, knife knives, box boxes, bus "
        "buses, story stories, tree trees, sheep sheep, lady ladies, wolf wolves, brush brushes, "
        "toy toys, hero heroes, goose geese, book books, table tables, party parties, dish dishes"
    )
)
PASTS = dict(
    pair.split(" ")
    for pair in _words(
        "go went, see saw, eat ate, run ran, take took, give gave, come came, sing sang, walk "
        "walked, play played, make made, say said, think thought, find found, write wrote, fall "
        "fell, buy bought, catch caught, speak spoke, know knew, jump jumped, call called, begin "
        "began, drink drank, sleep slept, teach taught, win won, lose lost, stand stood, hear "
        "heard"
    )
)
UNITS = dict(
    pair.split(" ")
    for pair in _words(
        "km kilometres, cm centimetres, kg kilograms, g grams, m metres, l litres, h hours, "
        "min minutes, s seconds, mm millimetres, t tonnes, ml millilitres"
    )
)
NUMBER_WORDS = (
    *_words(
        "zero, one, two, three, four, five, six, seven, eight, nine, ten, eleven, twelve, "
        "thirteen, fourteen, fifteen, sixteen, seventeen, eighteen, nineteen"
    ),
)
TENS = _words("twenty, thirty, forty, fifty, sixty, seventy, eighty, ninety")
ORDERED = (
    _words("Monday, Tuesday, Wednesday, Thursday, Friday, Saturday, Sunday"),
    _words(
        "January, February, March, April, May, June, July, August, September, October, November, "
        "December"
    ),
    tuple("ABCDEFGHIJKLMNOPQRSTUVWXYZ"),
    NUMBER_WORDS,
)
SYLLABLES = _words(
    "ba, be, bi, bo, da, de, di, do, fa, fe, fi, ga, go, ka, ki, ko, la, le, li, lo, ma, me, "
    "mi, mo, na, ne, ni, no, pa, pe, po, ra, re, ri, ro, sa, se, si, so, ta, te, ti, to, va, "
    "ve, vi, zu, zo"
)
# The invented words of the held-out family: no syllable of theirs is in the list above.
HELD_OUT_SYLLABLES = (
    _words("blick, dorp, gleem, snarf, wozz, frund, plax, trub, skelt, crimp, brast, gronk"),
    _words("umo, elia, ovai, isu, aleo, unie, oeta, ilau, eyo, avua, yori, uhea"),
    _words("tsch, kzt, vrk, mzp, dlk, hrf, gzn, sktr, pfl, xqu, brg, zwt"),
)


def number_in_words(number: int) -> str:
    """Write a number from 0 to 99 in words.

    Args:
        number: what to write.

    Returns:
        Such as "forty-two".
    """
    if number < 20:
        return NUMBER_WORDS[number]
    rest = f"-{NUMBER_WORDS[number % 10]}" if number % 10 else ""
    return TENS[number // 10 - 2] + rest
