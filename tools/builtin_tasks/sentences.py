"""The small grammar's words: who does what. A star marks those that are several."""

PEOPLE = (
    "He", "She", "They*", "We*", "They*", "She", "The teacher", "The nurse", "The students*", "The farmer", "The baker",
    "The lawyer", "The pilots*", "The painter", "The plumber", "The singer", "The tourists*", "The gardener",
    "The engineers*", "The waiter", "My brother", "My sisters*", "My aunt", "My parents*", "My cousin", "My uncle",
    "Our neighbours*", "Our boss", "Our guests*", "Our friends*", "Anna", "Omar", "Lucy", "Mr. Patel", "Mrs. Novak",
    "Diego", "Mei", "Hannah", "Yusuf", "Clara", "Anna and Omar*", "Tom and Lucy*", "Karim", "Ingrid", "Rosa and Leo*",
    "The librarian", "The carpenter", "The new clerk", "The old sailor", "The twins*",
)  # fmt: skip

PEOPLE_DO = (
    "walk to school", "play chess in the park", "cook rice for dinner", "paint the kitchen wall", "clean the windows",
    "watch the evening news", "listen to the radio", "visit the old museum", "open a small shop", "close the door",
    "carry the heavy boxes", "study French history", "plan a trip to Rome", "stop at the corner", "repair old bicycles",
    "collect foreign stamps", "invite the mayor", "answer the phone", "wash the car", "water the plants",
    "bake apple pies", "dance at the wedding", "travel by train", "work in the garden", "call the doctor",
    "help the new student", "thank the driver", "borrow two books", "return the keys", "pack a small suitcase",
    "enjoy the music", "order a cup of tea", "move to the city", "climb the hill", "fix the broken lamp",
    "park behind the church", "practise the piano", "live near the river", "love fresh bread", "need a warm coat",
    "want a new job", "talk about the weather", "wait for the bus", "laugh at the joke", "look for the cat",
    "try the soup", "hurry to the station", "copy the notes", "write a long letter", "read the newspaper",
    "go to the market", "eat bread and cheese", "drink green tea", "buy fresh fruit", "sell old furniture",
    "take the early bus", "give a short speech", "make strong coffee", "see the mountains", "run along the beach",
    "swim in the lake", "sing in a choir", "teach mathematics", "bring the tickets", "catch the last train",
    "drive a red van", "ride a brown horse", "fly to Madrid", "sleep until noon", "sit by the window",
    "stand near the entrance", "wear a blue hat", "speak Italian", "tell a funny story", "find the missing key",
    "lose the map", "pay the bill", "send a parcel", "spend a week in Spain", "build a wooden shed",
    "draw a portrait", "grow tomatoes", "keep the receipt", "leave the office at six", "meet the judge",
    "feed the ducks", "hear the church bells", "hold the ladder", "know the answer", "sweep the floor",
    "throw the ball", "win the first prize", "break a glass", "choose the green sofa", "begin a new course",
    "forget the password", "cut the grass", "put the milk in the fridge", "set the table", "get a letter from the bank",
    "have a small dog", "do the dishes",
)  # fmt: skip

ADJECTIVES = (
    "tired after lunch", "late for work", "ready to leave", "proud of the team", "afraid of spiders",
    "happy in the new flat", "angry about the delay", "busy on Fridays", "at home", "in the library", "good at chess",
    "sure about the date",
)  # fmt: skip

THINGS_DO: dict[str, tuple[str, ...]] = {
    "The train": ("leave at noon", "arrive late", "stop at every village"),
    "The shop": ("open at nine", "close on Sundays", "sell garden tools"),
    "The dog": ("bark at the postman", "sleep under the table", "chase the cat"),
    "The museum": ("open at ten", "show modern art", "be closed on Mondays"),
    "The river": ("flow to the sea", "freeze in winter", "be very deep"),
    "The sun": ("rise at six", "set at eight", "be behind the clouds"),
    "The film": ("begin at seven", "end at ten", "be too long"),
    "The baby": ("sleep in the next room", "laugh at the puppet", "be hungry again"),
    "The phone": ("ring all day", "need a new battery", "be on the desk"),
    "The old bridge": ("need repair", "be open to cyclists"),
    "The heating": ("work well", "make a strange noise"),
    "Prices*": ("rise in summer", "fall in autumn", "be too high"),
    "The lessons*": ("start in autumn", "take an hour", "be free of charge"),
    "The birds*": ("sing in the morning", "fly south", "build a nest"),
    "The trees*": ("lose their leaves", "grow fast"),
    "The cows*": ("eat grass", "stand in the shade", "be in the barn"),
    "The tickets*": ("cost ten euros", "be on the table"),
    "The keys*": ("be in the drawer", "belong to the school"),
}

IRREGULAR = {
    "be": "was", "begin": "began", "break": "broke", "bring": "brought", "build": "built", "buy": "bought",
    "catch": "caught", "choose": "chose", "cost": "cost", "cut": "cut", "do": "did", "draw": "drew", "drink": "drank",
    "drive": "drove", "eat": "ate", "fall": "fell", "feed": "fed", "find": "found", "fly": "flew", "forget": "forgot",
    "freeze": "froze", "get": "got", "give": "gave", "go": "went", "grow": "grew", "have": "had", "hear": "heard",
    "hold": "held", "keep": "kept", "know": "knew", "leave": "left", "lose": "lost", "make": "made", "meet": "met",
    "pay": "paid", "put": "put", "read": "read", "ride": "rode", "ring": "rang", "rise": "rose", "run": "ran",
    "see": "saw", "sell": "sold", "send": "sent", "set": "set", "show": "showed", "sing": "sang", "sit": "sat",
    "sleep": "slept", "speak": "spoke", "spend": "spent", "stand": "stood", "stop": "stopped", "sweep": "swept",
    "swim": "swam", "take": "took", "teach": "taught", "tell": "told", "throw": "threw", "travel": "travelled",
    "wear": "wore", "win": "won", "write": "wrote", "plan": "planned",
}  # fmt: skip
